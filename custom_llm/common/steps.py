"""The steps by name, and how a person starts one: a script of a checkout, or a command of the installed package."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

# script of a checkout → command of `custom-llm`, which is also its module in `custom_llm.commands`
STEPS = {
    "llm_model": "model",
    "train_llm": "train",
    "convert_to_gguf": "convert",
    "inference_gguf": "write",
    "serve_gguf": "serve",
    "evaluate_llm": "evaluate",
    "quickstart": "quickstart",
}
PROGRAM = "custom-llm"


def step(script: str) -> str:
    """What a step is called where this one was started: `train_llm.py`, or `custom-llm train`."""
    return f"{PROGRAM} {STEPS[script]}" if _is_installed() else f"{script}.py"


def command(script: str, *words: str) -> str:
    """What to type for a step where this one was started.

    >>> command("train_llm", "--resume")
    'python train_llm.py --resume'
    """
    return f"{'' if _is_installed() else 'python '}{step(script)}{' ' if words else ''}{shlex.join(words)}"


def _is_installed() -> bool:
    return Path(sys.argv[0]).stem == PROGRAM
