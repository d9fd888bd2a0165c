"""Datasets of the Hugging Face hub as text files."""
