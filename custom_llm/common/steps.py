"""The steps by name, and how a person starts one: a script of a checkout, or a command of the installed package."""

from __future__ import annotations

import os
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
ON_WINDOWS = os.name == "nt"


def program() -> str:
    """What the installed package is started with; "" where a script of a checkout was started."""
    started = Path(sys.argv[0])
    if started.stem == PROGRAM:
        return PROGRAM
    return "python -m custom_llm.commands" if started.parts[-2:] == ("commands", "__main__.py") else ""


def step(script: str) -> str:
    """What a step is called where this one was started: `train_llm.py`, or `custom-llm train`."""
    return f"{program()} {STEPS[script]}" if program() else f"{script}.py"


def command(script: str, *words: str) -> str:
    """What to type for a step where this one was started.

    >>> command("train_llm", "--resume")
    'python train_llm.py --resume'
    """
    if ON_WINDOWS:  # whose cmd.exe knows no single quotes
        from subprocess import list2cmdline as join
    else:
        from shlex import join
    return f"{'' if program() else 'python '}{step(script)}{' ' if words else ''}{join(words)}"


def install(extra: str) -> str:
    """How to add what is not always installed, by the name of its extra.

    >>> install("serve")
    'pip install -r requirements-serve.txt'
    """
    return f"install custom-llm-scripts[{extra}]" if program() else f"pip install -r requirements-{extra}.txt"
