"""A thin layer over llama.cpp's C interface: load a GGUF, tokenize, decode, read logits.

The only place that touches the `llama_cpp` bindings. It adds what the C interface leaves to the caller: a
failure is an exception instead of a dead process, and no position is ever asked for that the model's table of
learned positions does not hold (llama.cpp rounds a context up to a multiple of 256 and would abort).
"""

from custom_llm.llamacpp.bindings import gpu_available
from custom_llm.llamacpp.context import Context, score_windows
from custom_llm.llamacpp.model import Model
from custom_llm.llamacpp.quantize import quantize_file
from custom_llm.llamacpp.sampler import PENALTY_LAST_N, Sampler

__all__ = ["PENALTY_LAST_N", "Context", "Model", "Sampler", "gpu_available", "quantize_file", "score_windows"]
