"""Errors for people: one line that says what is wrong and what to do, never a traceback.

Raise `UserError` wherever the cause is something a person typed, chose or supplied. `run` is the outermost frame of
every script: it turns that, and what a person can mend of the machine, into one line on stderr and an exit status.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports for `... | head`

ON_WINDOWS = os.name == "nt"

# How torch words it, and the loader of its libraries.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc", "failed to map segment")


class UserError(Exception):
    """Something a person can mend. The message names the flag or file, what is wrong, and the way out."""


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)` and return the exit status, printing one line for what a person can mend."""
    _prepare_streams()
    try:
        status = main(argv)
        sys.stdout.flush()
        return status or 0
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        # That nobody reads any more what is printed (`| head`) Windows calls an invalid argument.
        reader_has_gone = ON_WINDOWS and error.errno == errno.EINVAL and error.filename is None
        if not (reader_has_gone or isinstance(error, BrokenPipeError)):
            return _fail(describe_os_error(error))
        # Point stdout elsewhere so that the interpreter's own flush is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail("not enough memory; choose a smaller model (--n_embd, --n_layer), --batch_size or text")


def is_out_of_memory(error: MemoryError | RuntimeError | ImportError) -> bool:
    """Whether an error is about memory that was not to be had, of the machine or of a GPU."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def describe_os_error(error: OSError) -> str:
    """`[Errno 28] No space left on device: 'x'` as `x: no space left on device`."""
    reason = (error.strerror or str(error)).lower()
    if re.fullmatch(r"\d+ requested and \d+ written", reason):  # all that NumPy says
        reason = "it could not be written to its end; is the disk full?"
    return f"{error.filename}: {reason}" if error.filename else reason


def _prepare_streams() -> None:
    """Let every script print any text in any locale, also where the shell closed a stream (`>&-`)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (open until the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


def _fail(message: str) -> int:
    with contextlib.suppress(OSError):  # stderr may be as full as the disk
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_USER_ERROR
