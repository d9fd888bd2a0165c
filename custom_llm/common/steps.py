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


def command(script: str, *words: str) -> str:
    """What to type for a step, in the form in which this one was started.

    >>> command("train_llm", "--resume")
    'python train_llm.py --resume'
    """
    installed = Path(sys.argv[0]).stem == PROGRAM
    return shlex.join([*([PROGRAM, STEPS[script]] if installed else ["python", f"{script}.py"]), *words])
