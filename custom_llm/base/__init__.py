"""What a training can start from, where that is another model."""
