"""Lines to the person at the terminal, on stderr: what is asked for goes to stdout. And files of them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def is_terminal(*streams: IO | None) -> bool:
    """Whether a person types or reads there: not where a stream is closed, or there is none, as without a console."""
    return all(stream is not None and not stream.closed and stream.isatty() for stream in streams)


def say(line: str) -> None:
    """Write a line without tearing a progress bar that is shown there."""
    if tqdm := sys.modules.get("tqdm"):  # without it there is no bar
        tqdm.tqdm.write(line, file=sys.stderr)
        if sys.stderr is not None:
            sys.stderr.flush()
    else:
        print(line, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Something worth knowing."""
    say(f"note: {text}")


def warn(text: str) -> None:
    """Something that may not be what the person wants."""
    say(f"warning: {text}")


def log_to(path: str) -> logging.Logger:
    """The project's logger, appending to the file `path`; one that cannot be written loses the log, not the work."""
    import logging  # takes 5 ms, which no other --help need wait for

    logger = logging.getLogger("custom_llm")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        handler: logging.Handler = logging.NullHandler()
        if not Path(path).exists() or Path(path).is_file():  # opening a pipe would wait for a reader
            with contextlib.suppress(OSError):
                handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        handler.handleError = lambda record: None  # a full disk
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    return logger
