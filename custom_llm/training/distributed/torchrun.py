"""Which of the processes that torchrun has started this one is. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from custom_llm.common.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError

SECONDS_TO_SPEAK = 10  # that the first process has to say what is wrong


def world_size() -> int:
    """How many processes there are on all machines together; 1 where torchrun has started none.

    UserError where somebody else has set what torchrun sets.
    """
    return max(1, _number("WORLD_SIZE")) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """The number of this process, from 0."""
    return _number("RANK") if world_size() > 1 else 0


def local_rank() -> int:
    """Its number among those of this machine, from 0."""
    return _number("LOCAL_RANK") if world_size() > 1 else 0


def _number(name: str) -> int:
    """What torchrun says in a variable."""
    text = os.environ.get(name, "")
    if text.isdecimal() and (name == "WORLD_SIZE" or int(text) < _number("WORLD_SIZE")):
        return int(text)
    raise UserError(
        f"the variable {name} is {text!r}, beside LOCAL_RANK, which torchrun sets; start with torchrun, or unset "
        "LOCAL_RANK"
    )


@contextlib.contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """While entered, processes other than the first print nothing and hear nothing.

    What a person can mend is mostly wrong in all of them. The first one says it, and as it ends torchrun ends the
    others of its machine, who wait for that. On other machines the first one says it, too, a little later. Bugs are
    told by all.
    """
    if rank() == 0:
        yield
        return
    try:
        with Path(os.devnull).open("r+", encoding="utf-8") as nothing, contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(nothing))
            stack.enter_context(contextlib.redirect_stderr(nothing))
            stack.callback(setattr, sys, "stdin", sys.stdin)
            sys.stdin = nothing
            yield
    except UserError:
        time.sleep(SECONDS_TO_SPEAK)
        if local_rank() == 0:
            raise
        raise SystemExit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
