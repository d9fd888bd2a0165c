"""A thin layer over llama.cpp's C interface: load a GGUF, tokenize, decode, read logits.

The only place that touches the `llama_cpp` bindings, which are loaded when the first of these names is used. It adds
what the C interface leaves to the caller: a failure is an exception instead of a dead process, and no position is ever
asked for that the model's table of learned positions does not hold (llama.cpp rounds a context up to a multiple of 256
and would abort).
"""

from importlib.util import find_spec

from custom_llm.common.lazy import lazy
from custom_llm.common.steps import install, program

LATER = {
    "Context": "custom_llm.llamacpp.context",
    "Lora": "custom_llm.llamacpp.adapter",
    "Model": "custom_llm.llamacpp.model",
    "Sampler": "custom_llm.llamacpp.sampler",
    "gpu_available": "custom_llm.llamacpp.bindings",
    "is_adapter": "custom_llm.llamacpp.adapter",
    "parse_lora": "custom_llm.llamacpp.adapter",
    "quantize_file": "custom_llm.llamacpp.model",
    "score_windows": "custom_llm.llamacpp.context",
}
__all__ = [*LATER]

__getattr__ = lazy(__name__, LATER)

MISSING = (
    f"llama.cpp is not installed here (it needs a C++ compiler: {install('llama') if program() else 'docs/install.md'})"
)


def is_available() -> bool:
    """Whether the bindings `llama_cpp` are installed."""
    try:
        return find_spec("llama_cpp") is not None
    except ValueError:  # a test, or somebody else, has put None in its place
        return False
