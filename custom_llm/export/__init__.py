"""From weights to a Hugging Face directory, from there to GGUF files, each proven to be the same model."""
