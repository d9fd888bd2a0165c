"""What a person has made is not written over: it gets a dated name beside the new one, unless they say it may go."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import BASE_WEIGHTS, LOCK, LOSSES, beside
from custom_llm.common.notes import is_terminal, say

# How the files end that a step writes beside its output (`beside`).
OF_CONFIG = (".yaml", BASE_WEIGHTS)
OF_MODEL = (".lora.pth", ".checkpoint.pth", ".yaml", LOSSES, ".loss.png", ".report.html", ".tensorboard", ".log")

_answers: list[bool] = []  # of this process: several steps of one command ask once


def may_replace(what: str) -> bool:
    """Whether a person at a terminal says that what is there may go; nobody does elsewhere."""
    if not is_terminal(sys.stdin, sys.stderr):
        return False
    if not _answers:
        print(f"There is {what}. Keep it under another name? (Enter: yes; no: replace it) ", end="", flush=True)
        _answers.append(sys.stdin.readline().strip().lower() in ("n", "no"))
    return _answers[0]


def family(main: Path, endings: Iterable[str]) -> list[Path]:
    """The files of an output that are there."""
    return [path for path in (main, *(beside(main, ending) for ending in endings)) if path.exists()]


def set_aside(families: Sequence[tuple[Path, Sequence[Path]]], copied: Sequence[Path] = ()) -> list[Path]:
    """Give files a name with the date of the first one, say so in a line, and return the new names of the mains.

    `trained_model.loss.csv` becomes `trained_model.2026-11-29-0712.loss.csv`. UserError where that cannot be.

    Args:
        families: each is an output and its files, whose names begin with that of the output but for its ending.
        copied: files of them that also stay where they are.
    """
    pairs, mains, date = [], [], ""
    first = families[0][1][0]
    when = time.strftime("%Y-%m-%d-%H%M", time.localtime(first.stat().st_mtime))
    for attempt in range(1, 1000):
        date = when if attempt == 1 else f"{when}-{attempt}"
        pairs = [(path, _dated(main, path, date)) for main, paths in families for path in paths]
        mains = [_dated(main, main, date) for main, _ in families]
        if not any(new.exists() for _, new in pairs):
            break
    size = sum(old.stat().st_size for old, _ in pairs) / 1e6
    try:
        for old, new in pairs:
            if old in copied and old.name.endswith(BASE_WEIGHTS):
                _link(old, new)
            elif old in copied or old.suffix == ".yaml":  # options, by which a person may want to do it again
                shutil.copy2(old, new)
            elif old.is_dir():  # which may be locked
                new.mkdir()
                for inside in old.iterdir():
                    if inside.name != LOCK:
                        inside.rename(new / inside.name)
            else:
                old.rename(new)
    except OSError as error:
        raise UserError(f"cannot keep what was made before: {describe_os_error(error)}; move it away") from error
    say(f"kept what was there: {' and '.join(map(str, mains))} ({size:,.1f} MB; remove it when you no longer want it)")
    return mains


def _link(old: Path, new: Path) -> None:
    """Give a large file, which is never changed but only replaced, another name as well; or copy it."""
    try:
        new.hardlink_to(old)
    except OSError:  # not all file systems can
        shutil.copy2(old, new)


def is_dated(path: Path) -> bool:
    """Whether a file was set aside before."""
    return re.search(r"\.\d{4}-\d\d-\d\d-\d{4}(-\d+)?\.", path.name) is not None


def _dated(main: Path, path: Path, date: str) -> Path:
    stem = main.stem if main.is_file() or main.suffix == ".pth" else main.name
    return path.with_name(f"{stem}.{date}{path.name.removeprefix(stem)}")
