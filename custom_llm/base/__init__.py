"""What a training can start from instead of random weights: another model, wherever it is, as one of ours."""
