"""Text from a GGUF file through llama.cpp: no torch, any length, quick to start."""
