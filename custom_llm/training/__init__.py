"""Training a model on windows of text."""
