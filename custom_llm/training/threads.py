"""How many threads a training step is fastest with on this machine, now."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

WARM_UP, TIMED = 2, 3


def use_fastest_threads(step: Callable[[], object]) -> int:
    """Time `step` with all of torch's threads, half of them, and so on to one; keep the fastest and return it.

    The threads of a small model's step mostly wait for each other, and where other programs keep a core busy they
    wait long: two threads on a busy two-core machine can take four times as long as one.
    """
    candidates = [torch.get_num_threads()]
    while candidates[-1] > 1:
        candidates.append(candidates[-1] // 2)
    if len(candidates) > 1:
        seconds = {n: _time(step, n) for n in candidates}
        torch.set_num_threads(min(seconds, key=seconds.__getitem__))
    return torch.get_num_threads()


def _time(step: Callable[[], object], n_threads: int) -> float:
    """Median seconds of a step with `n_threads`."""
    torch.set_num_threads(n_threads)
    times = []
    for _ in range(WARM_UP + TIMED):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])
