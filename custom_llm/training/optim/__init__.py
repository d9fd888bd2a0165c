"""What follows the gradient: optimizers, the learning rate over time, the average of the weights."""
