"""The steps by name, and how a person starts one: a script of a checkout, or a command of the installed package."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
QUICKSTART = "quickstart"  # the folder that quickstart writes to
ON_WINDOWS = os.name == "nt"


def program() -> str:
    """What the installed package is started with; "" where a script of a checkout was started."""
    started = Path(sys.argv[0])
    if started.stem == PROGRAM:
        return _typed(PROGRAM, started)
    return f"{_python()} -m custom_llm.commands" if started.parts[-2:] == ("commands", "__main__.py") else ""


def step(script: str) -> str:
    """What a step is called where this one was started: `train_llm.py`, or `custom-llm train`."""
    return f"{program()} {STEPS[script]}" if program() else f"{script}.py"


def command(script: str, *words: str) -> str:
    """What to type for a step where this one was started.

    >>> command("train_llm", "--resume")
    'python train_llm.py --resume'
    """
    start = step(script) if program() else f"{_python()} {step(script)}"
    return f"{start} {quoted(*words)}" if words else start


def python(code: str) -> str:
    """What to type to run a line of Python where this program runs."""
    return f"{_python()} -c {quoted(code)}"


def flags_of(options: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})) -> list[str]:
    """Options as words of a command, without those that have their default or are None.

    >>> flags_of({"minutes": 2.0, "model_path": "a.pth", "encoding": "utf-8"}, {"encoding": "utf-8"})
    ['--minutes', '2', '--model_path', 'a.pth']
    """
    kept = {name: value for name, value in options.items() if value is not None and value != defaults.get(name)}
    whole = {name: int(value) for name, value in kept.items() if isinstance(value, float) and value.is_integer()}
    return [word for name, value in {**kept, **whole}.items() for word in (f"--{name}", str(value))]


_on_a_road = False


@contextlib.contextmanager
def on_a_road() -> Iterator[None]:
    """While entered, steps are taken one after the other, and none has to name the next."""
    global _on_a_road
    before, _on_a_road = _on_a_road, True
    try:
        yield
    finally:
        _on_a_road = before


def next_step(script: str, *words: str) -> str:
    """A line that names the next command; nothing where it follows by itself."""
    return "" if _on_a_road else f"next: {command(script, *words)}"


def portable(text: str) -> str:
    """A text for a file that others may read: in its commands, programs by their names and not by their paths here."""
    for name, path in (("python", sys.executable), (PROGRAM, sys.argv[0])):
        if Path(path).is_absolute():
            text = text.replace(quoted(path), name)
    return text


def quoted(*words: str) -> str:
    """Words of a command as the shell takes them."""
    if ON_WINDOWS:  # whose cmd.exe knows no single quotes
        from subprocess import list2cmdline as join
    else:
        from shlex import join
    return join(words)


def install(extra: str) -> str:
    """How to add what is not always installed, by the name of its extra.

    >>> install("serve")
    'pip install -r requirements-serve.txt'
    """
    wanted = f'"custom-llm-scripts[{extra}]"' if program() else f"-r requirements-{extra}.txt"
    if find_spec("pip") is None:  # as in what uv makes
        return f"uv pip install --python {quoted(sys.executable)} {wanted}"
    return f"{'' if _python() == 'python' else _python() + ' -m '}pip install {wanted}"


def docs(page: str) -> str:
    """Where to read on, for the end of a sentence; nothing where there are no docs, since the package is installed."""
    return "" if program() else f" (docs/{page}.md)"


def _python() -> str:
    return _typed("python", Path(sys.executable))


def _typed(name: str, program: Path) -> str:
    """A program by its name if a shell finds it so, and not another of that name; else by its path."""
    found = shutil.which(name)
    if found and program.parent.is_dir() and Path(found).parent.samefile(program.parent):
        return name
    return quoted(str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program))
