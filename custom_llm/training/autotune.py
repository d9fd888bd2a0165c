"""Which settings a training step is fastest with on this machine, now; found within seconds, on a part of a batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TypeVar

import torch

from custom_llm.common.progress import Progress
from custom_llm.training.distributed.processes import ALONE, Processes
from custom_llm.training.speed import GAIN, precisions_of
from custom_llm.training.step import Batch, Step, get_random_state, set_random_state

SECONDS, SHARE = 3.0, 0.02  # that choosing may take, about, and no larger share of a training by the clock
REHEARSALS = 20  # that are to fit into them
# With less work than in these, threads and precision matter otherwise than in a whole batch: bfloat16 took 0.81 of
# float32's time for 512 tokens of the default model, 0.60 for 1,024 and 0.50 for 4,096.
FEWEST_TOKENS = 1024
LARGE = 10_000_000  # parameters, from which fewer tokens are as much work
# Parameters from which all threads are fastest, and bfloat16 where the processor has instructions for it: to time it
# would take longer than choosing may, and on a busy machine say the contrary.
CERTAIN = 50_000_000
WARM_UP, TIMED = 2, 3
SLOWER = 1.5  # times the best time: what takes so long is not timed again, nor what comes after it
Setting = TypeVar("Setting")


def use_fastest_settings(step: Step, batch: Batch) -> None:
    """Choose threads and precision by the time that (a part of) a batch (x, y) takes, unless they were told.

    The threads of a small model's step mostly wait for each other, and where other programs keep a core busy they
    wait long: two threads on a busy two-core machine can take four times as long as one. All of torch's threads are
    tried, half of them, and so on to one.
    """
    alone = step.processes.size == 1  # torchrun's processes have a thread each, or what a person says
    threads = [torch.get_num_threads()]
    while alone and step.device.type == "cpu" and step.config.threads is None and threads[-1] > 1:
        threads.append(threads[-1] // 2)
    precisions = precisions_of(step.device, step.config.precision)
    if len(threads) == len(precisions) == 1:
        return
    if step.device.type == "cpu" and step.model.n_parameters() >= CERTAIN:
        step.use_precision(precisions[-1])
        return
    seconds = min(SECONDS, SHARE * 60 * (step.config.minutes or inf))
    random_state = get_random_state()
    with Progress("finding out what is fastest here", delay=1, has_end=False) as progress:

        def rehearse(part: Batch) -> None:
            progress.update(0, lambda: f"{torch.get_num_threads()} threads, {step.precision}")
            step.rehearse(part)

        if alone and step.device.type == "cpu":  # elsewhere the passes of whole batches are computed otherwise
            fewest = FEWEST_TOKENS * LARGE // max(LARGE, step.model.n_parameters())
            batch = _part(rehearse, batch, seconds / REHEARSALS, fewest)
        work = partial(rehearse, batch)
        _, known = use_fastest(work, threads, torch.set_num_threads, seconds=seconds / 2)
        use_fastest(work, precisions, step.use_precision, GAIN, seconds / 2, known, step.processes)
    set_random_state(random_state)


def _part(rehearse: Callable[[Batch], object], batch: Batch, seconds: float, fewest: int) -> Batch:
    """As many windows of a batch as take `seconds` at most, but `fewest` tokens, to tell what is fast for all."""
    x, y = batch
    n = -(-fewest // x.shape[1])
    rehearse((x[:n], y[:n]))  # the first time is longer
    while n < len(x) and _time_of(lambda part=(x[:n], y[:n]): rehearse(part)) < seconds / 2:
        n *= 2
    return x[:n], y[:n]


def use_fastest(
    work: Callable[[], object],
    settings: Sequence[Setting],
    use: Callable[[Setting], object],
    gain: float = 0.0,
    seconds: float = inf,
    first: float | None = None,
    processes: Processes = ALONE,
) -> tuple[Setting, float | None]:
    """Time `work` with each of several settings; use the fastest from now on, and return it and its time.

    Args:
        settings: in such an order that behind one that is clearly slower than the best there is none that is faster.
        gain: share of the first setting's time that another one must save to be taken.
        seconds: for all of it, though each setting has two turns.
        first: seconds that the work takes with the first setting; None: not known.
        processes: which do the work together, and must use the same.
    """
    if len(settings) == 1:  # it holds
        return settings[0], first
    found = [] if first is None else [first]  # median seconds of the work
    for setting in settings[len(found) :]:
        use(setting)
        times: list[float] = []
        while len(times) < WARM_UP + TIMED:
            times += processes.sum(_time_of(work))
            is_slow = times[-1] > SLOWER * min(found, default=inf)
            if len(times) > 1 and (is_slow or sum(times) > processes.size * seconds / len(settings)):
                break
        found.append(statistics.median(times[min(WARM_UP, len(times) - 1) :]))
        if found[-1] > SLOWER * min(found):
            break
    best = min(range(len(found)), key=found.__getitem__)
    best = best if found[best] <= (1 - gain) * found[0] else 0
    use(settings[best])
    return settings[best], found[best]


def _time_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
