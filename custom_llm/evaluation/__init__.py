"""How good a model is, measured through functions that score and write, whatever it runs in."""
