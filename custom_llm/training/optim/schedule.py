"""The learning rate over time: a rise, then one of several ways down."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.03  # share of the training in which the learning rate rises, if no number of steps is given
FLOOR = 0.1  # share of the peak that is left at the end, if min_lr is not given
FIRST = 0.02  # share of the peak at the very first step
DECAY = 0.2  # share of the training at whose end `wsd` comes down

# name → what is left between peak (1) and floor (0) after a share, from 0 to 1, of the time behind the warm-up
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),  # https://arxiv.org/abs/1608.03983
    "linear": lambda p: 1 - p,
    "wsd": lambda p: min(1.0, (1 - p) / DECAY),  # warm up, stay, decay: https://arxiv.org/abs/2404.06395
    "constant": lambda p: 1.0,
}


def learning_rate_at(
    progress: float, peak: float, floor: float | None = None, schedule: str = "cosine", warm_up: float = WARM_UP
) -> float:
    """The learning rate when so much of the training is done, from 0 to 1, in steps or in time.

    It rises to the peak in the share `warm_up`, and comes down to the floor (default: FLOOR · peak).

    >>> [round(learning_rate_at(p, 1.0), 2) for p in (0.0, 0.015, 0.03, 0.515, 1.0)]
    [0.02, 0.5, 1.0, 0.55, 0.1]
    """
    floor = FLOOR * peak if floor is None else floor
    if progress < warm_up:
        return peak * max(progress / warm_up, FIRST)
    share = (progress - warm_up) / (1 - warm_up) if warm_up < 1 else 1.0
    return floor + (peak - floor) * SCHEDULES[schedule](share)
