"""GGUF files: llama.cpp's graphs, the writer, quantization."""
