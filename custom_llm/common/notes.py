"""Lines to the person at the terminal, on stderr: what is asked for goes to stdout."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Write a line without tearing a progress bar that is shown there."""
    if tqdm := sys.modules.get("tqdm"):  # without it there is no bar
        tqdm.tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
    else:
        print(line, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Something worth knowing."""
    say(f"note: {text}")


def warn(text: str) -> None:
    """Something that may not be what the person wants."""
    say(f"warning: {text}")
