"""What goes with a model that is handed on: its card, a Modelfile, the Hugging Face hub."""
