"""What is measured of a model, through functions that score and write."""
