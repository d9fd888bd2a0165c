"""The command `custom-llm`: every step under one name, where this package is installed.

Also `python -m custom_llm.commands`, and `torchrun -m custom_llm.commands train`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from custom_llm import __version__
from custom_llm.common.errors import UserError, run
from custom_llm.common.steps import PROGRAM, STEPS, program

COMMANDS = {  # each is a module beside this one
    "quickstart": "all four steps in one go, on bundled stories or on your text",
    "model": "step 1: what the model looks like",
    "train": "step 2: train it on a text",
    "convert": "step 3: make files of it that run anywhere",
    "write": "step 4: write text",
    "serve": "a page in the browser, and a server for programs",
    "evaluate": "how good the model is",
}


def start() -> int:
    """What the console script calls."""
    return run(main)


def main(argv: Sequence[str] | None = None) -> int | None:
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(f"usage: {program()} COMMAND [options]\n\nFrom a text file to a language model of your own.\n")
        print(*(f"  {command:12}{what}" for command, what in COMMANDS.items()), sep="\n")
        print(f"\n{program()} COMMAND --help tells more; {program()} --version tells the version.")
        return 0
    if name in ("-V", "--version"):
        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in COMMANDS:
        known = {**{command: command for command in COMMANDS}, **STEPS}  # spelled nearly so, or a script of that name
        found = get_close_matches(name.removesuffix(".py"), known, n=1)
        nearest = f"; did you mean {known[found[0]]}?" if found else ""
        raise UserError(f"{name}: no such command{nearest} (see {program()} --help)")
    return import_module(f"custom_llm.commands.{name}").main(words)


if __name__ == "__main__":
    sys.exit(start())
