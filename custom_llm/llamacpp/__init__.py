"""A thin layer over llama.cpp's C interface: load a GGUF, tokenize, decode, read logits.

The only place that touches the `llama_cpp` bindings. It adds what the C interface leaves to the caller: a
failure is an exception instead of a dead process, and no position is ever asked for that the model's table of
learned positions does not hold (llama.cpp rounds a context up to a multiple of 256 and would abort).

The bindings are loaded when a name of them is first used: without a C++ compiler they may not be there (`available`).
"""

from custom_llm.common.lazy import lazy

__all__ = [
    "PENALTY_LAST_N", "Context", "Model", "Sampler", "gpu_available", "quantize_file", "score_windows",
]  # fmt: skip

__getattr__ = lazy(
    __name__,
    PENALTY_LAST_N="custom_llm.llamacpp.sampler",
    Context="custom_llm.llamacpp.context",
    Model="custom_llm.llamacpp.model",
    Sampler="custom_llm.llamacpp.sampler",
    gpu_available="custom_llm.llamacpp.bindings",
    quantize_file="custom_llm.llamacpp.quantize",
    score_windows="custom_llm.llamacpp.context",
)
