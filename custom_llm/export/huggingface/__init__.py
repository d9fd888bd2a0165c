"""The Hugging Face directory: stock classes, and their names for tensors."""
