"""How torch's threads wait for each other."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOAD = Path("/proc/loadavg")  # of Linux, whose fourth field begins with the number of threads that run now
OWN = Path("/proc/self/task")  # a folder for each thread of this process
LONG, BRIEF = 1_000_000, 1000  # turns of a loop


def choose_waiting() -> None:
    """Let a thread that has nothing to do spin while the machine is idle, or sleep soon where others compute.

    Takes effect before torch is imported, on GNU OpenMP. Threads of a small model wait for each other after each
    product. On two idle cores one trained at 30,600 tokens/s with long spins and 21,500 with brief ones; where another
    program kept a core busy, spins of some milliseconds took the core from the very thread that was waited for: 1,800
    against 10,800. An own GOMP_SPINCOUNT is respected.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", str(BRIEF if _others_compute() else LONG))


def _others_compute() -> bool:
    """Whether threads of other programs run, not only for a moment."""
    try:
        for _ in range(5):
            if int(LOAD.read_text().split()[3].partition("/")[0]) <= _own_running():
                return False
            time.sleep(0.002)
    except (OSError, ValueError, IndexError):
        return False
    return True


def _own_running() -> int:
    """Threads of this process that run: besides this one, those that NumPy has begun, which spin for some time."""
    states = (thread.joinpath("stat").read_text().rpartition(")")[2].split()[0] for thread in OWN.iterdir())
    return sum(state == "R" for state in states)
