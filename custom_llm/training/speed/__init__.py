"""How a step is computed faster: precision, compilation, CUDA graphs."""
