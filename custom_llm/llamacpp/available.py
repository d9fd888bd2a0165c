"""Whether llama.cpp can be used here. Imports nothing of it."""

from __future__ import annotations

import importlib.util

from custom_llm.common.steps import install, program

REMEDY = install("llama") if program() else "docs/install.md"
MISSING = f"llama.cpp is not installed here (it needs a C++ compiler: {REMEDY})"


def is_available() -> bool:
    """Whether the bindings `llama_cpp` are installed."""
    try:
        return importlib.util.find_spec("llama_cpp") is not None
    except ValueError:  # a test, or somebody else, has put None in its place
        return False
