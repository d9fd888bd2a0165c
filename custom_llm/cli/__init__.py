"""Command lines and questions, made from the fields of a config, and options in a file."""
