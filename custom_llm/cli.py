"""Command lines: argparse with one-line errors, checked numbers, and log files that never get in the way."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from custom_llm.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """argparse that raises `UserError` instead of printing its usage, and takes no abbreviated flags."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> None:
        raise UserError(f"{message} (see {self.prog} --help)")


def number(
    kind: type[int] | type[float], low: float | None = None, high: float | None = None
) -> Callable[[str], int | float]:
    """A parser for a finite number with low ≤ number ≤ high; it raises ValueError with the rule in words.

    >>> number(int, 1)("12")
    12
    """
    words = "a whole number" if kind is int else "a number"
    if low is not None and high is not None:
        words += f" from {low} to {high}"
    elif low is not None:
        words += f" of at least {low}"

    def parse(text: str) -> int | float:
        try:
            value = kind(text.strip())
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}") from None
        in_range = (low is None or value >= low) and (high is None or value <= high)
        if not in_range or value in (float("inf"), float("-inf")) or value != value:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return parse


def log_to(path: str) -> logging.Logger:
    """The project's logger, appending to the file `path`; a folder that cannot be written loses only the log."""
    logger = logging.getLogger("custom_llm")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        handler: logging.Handler = logging.NullHandler()
        if not Path(path).exists() or Path(path).is_file():  # opening a pipe would wait for a reader
            with contextlib.suppress(OSError):
                handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        handler.handleError = lambda record: None  # a full disk loses the log, not the work
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    return logger
