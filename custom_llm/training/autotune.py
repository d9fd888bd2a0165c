"""Which settings a training step is fastest with on this machine, now."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from custom_llm.training.distributed.processes import ALONE, Processes
from custom_llm.training.speed import GAIN, precisions_of
from custom_llm.training.step import Batch, Step, get_random_state, set_random_state

WARM_UP, TIMED = 2, 3
Setting = TypeVar("Setting")


def use_fastest_settings(step: Step, batch: Batch) -> None:
    """Choose threads and precision by the time that a batch (x, y) takes, unless they were told.

    The threads of a small model's step mostly wait for each other, and where other programs keep a core busy they
    wait long: two threads on a busy two-core machine can take four times as long as one. All of torch's threads are
    tried, half of them, and so on to one.
    """
    random_state = get_random_state()
    alone = step.processes.size == 1  # torchrun's processes have a thread each, or what a person says
    if alone and step.device.type == "cpu" and step.config.threads is None:
        threads = [torch.get_num_threads()]
        while threads[-1] > 1:
            threads.append(threads[-1] // 2)
        use_fastest(lambda: step.rehearse(batch), threads, torch.set_num_threads)
    precisions = precisions_of(step.device, step.config.precision)
    use_fastest(lambda: step.rehearse(batch), precisions, step.use_precision, GAIN, step.processes)
    set_random_state(random_state)


def use_fastest(
    work: Callable[[], object],
    settings: Sequence[Setting],
    use: Callable[[Setting], object],
    gain: float = 0.0,
    processes: Processes = ALONE,
) -> Setting:
    """Time `work` with each of several settings; use the fastest from now on and return it.

    Args:
        gain: share of the first setting's time that another one must save to be taken.
        processes: which do the work together, and must use the same.
    """
    if len(settings) == 1:  # it holds
        return settings[0]

    def timed(setting: Setting) -> float:
        """Median seconds of the work."""
        use(setting)
        times = []
        for _ in range(WARM_UP + TIMED):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return statistics.median(times[WARM_UP:])

    seconds = processes.sum(*map(timed, settings))
    best = min(range(len(settings)), key=seconds.__getitem__)
    chosen = settings[best] if seconds[best] <= (1 - gain) * seconds[0] else settings[0]
    use(chosen)
    return chosen
