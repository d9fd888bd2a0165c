"""Whether llama.cpp can be used here. Imports nothing of it."""

from __future__ import annotations

import importlib.util

MISSING = "llama.cpp is not installed here (it needs a C++ compiler: docs/install.md)"


def is_available() -> bool:
    """Whether the bindings `llama_cpp` are installed."""
    try:
        return importlib.util.find_spec("llama_cpp") is not None
    except ValueError:  # a test, or somebody else, has put None in its place
        return False
