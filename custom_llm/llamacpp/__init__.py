"""A thin layer over llama.cpp's C interface: load a GGUF, tokenize, decode, read logits.

The only place that touches the `llama_cpp` bindings, which are loaded when the first of these names is used. It adds
what the C interface leaves to the caller: a failure is an exception instead of a dead process, and no position is ever
asked for that the model's table of learned positions does not hold (llama.cpp rounds a context up to a multiple of 256
and would abort).
"""

from custom_llm.common.lazy import lazy

LATER = {
    "Context": "custom_llm.llamacpp.context",
    "Model": "custom_llm.llamacpp.model",
    "Sampler": "custom_llm.llamacpp.sampler",
    "gpu_available": "custom_llm.llamacpp.bindings",
    "quantize_file": "custom_llm.llamacpp.model",
    "score_windows": "custom_llm.llamacpp.context",
}
__all__ = [*LATER]

__getattr__ = lazy(__name__, LATER)
