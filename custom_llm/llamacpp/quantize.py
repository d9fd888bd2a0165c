"""Weights in fewer bits."""

from __future__ import annotations

import os

from custom_llm.common.errors import UserError
from custom_llm.llamacpp.bindings import c, error_lines, load_failure


def quantize_file(source: str | os.PathLike[str], target: str | os.PathLike[str], file_type: int) -> None:
    """Write the GGUF file `source` to `target` in llama.cpp's `enum llama_ftype` `file_type`.

    Raises UserError, with llama.cpp's reason, when it refuses.
    """
    params = c.llama_model_quantize_default_params()
    params.ftype = file_type
    error_lines.clear()
    if c.llama_model_quantize(os.fsencode(source), os.fsencode(target), params) != 0:
        raise UserError(f"{source} cannot be quantized: {load_failure()}")
