"""Public names of a root script, imported when first used, so that `--help` and prompts need not wait for torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(script: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A module-level `__getattr__` (PEP 562) for `script`. modules: name → the module it is in.

    >>> __getattr__ = lazy(__name__, {"sqrt": "math"})
    >>> __getattr__("sqrt")(9.0)
    3.0
    """

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {script!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return __getattr__
