"""Log files that never get in the way."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path


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
