"""How much of a training is done, in epochs, in steps or in time, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from custom_llm.config.training import TrainConfig

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


POINTS = 200  # of the curves that are drawn, besides those at reports
REPORTS = 20  # in a training by the clock or by steps, at most, and
REPORT_SHARE = 0.05  # of its time that goes into them, but
STEPS_REPORTS = 4  # in one by steps are made, whatever they take
COUNTS = ("steps", "epochs", "tokens", "batches", "paused")
CHECKPOINT_SECONDS = 60  # between two checkpoints, at least, and
CHECKPOINT_SHARE = 0.05  # of the time that goes into them


class Clock:
    """Counts what is done, and says what is due; `now` tells the time, in seconds."""

    def __init__(
        self, config: TrainConfig, steps_per_epoch: int, now: Callable[[], float] = time.monotonic, n_held_out: int = 0,
        starts_from_base: bool = False,
    ) -> None:  # fmt: skip
        """`starts_from_base`: `max_epochs` ends a training by the clock, too, if it is over sooner, and reports are
        spread over it instead of one being made after each epoch, which are few and long then.
        """
        self.now, self.n_held_out = now, n_held_out  # tokens that a report reads; 0: not known
        self.steps = self.epochs = self.tokens = 0  # finished so far
        self.batches = 0  # read in the epoch that is under way
        self.paused = 0.0  # seconds in reports and checkpoints
        self.report_seconds = self.checkpoint_seconds = 0.0  # what the last one took
        self.counts_epochs = config.minutes is None and config.max_iters is None
        self._config = config
        self._total_steps = config.max_iters or config.max_epochs * steps_per_epoch
        self._seconds = 60 * (config.minutes or 0)
        # A base memorises a short text in a few epochs, whatever time there is, and a training from one does best if
        # its learning rate has come down by then.
        self.reports_epochs = self.counts_epochs and not starts_from_base and config.eval_interval is None
        self._most_steps = config.max_epochs * steps_per_epoch if starts_from_base else math.inf
        self._start = self._checkpointed = now()
        self._reported = 0.0  # progress at the last report
        self._points = -1  # how many are behind us, but the one at the beginning

    def add(self, n_tokens: int, n_batches: int) -> None:
        """Count a step."""
        self.steps += 1
        self.tokens += n_tokens
        self.batches += n_batches

    @property
    def seconds(self) -> float:
        """Since the training began, without the time in which it was stopped."""
        return self.now() - self._start

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        if self._config.minutes is None:
            return min(1.0, self.steps / self._total_steps)
        return min(1.0, max(self.seconds / self._seconds, self.steps / self._most_steps))

    @property
    def total_steps(self) -> int | None:
        """Of the whole training; None where the time ends it."""
        return None if self._config.minutes is not None else self._total_steps

    @property
    def warm_up(self) -> float:
        """The share of the training in which the learning rate rises."""
        steps = self._config.warmup_steps
        if steps is None:
            return WARM_UP
        if self._config.minutes is None:
            return min(1.0, steps / self._total_steps)
        # By the clock, the number of steps to come is known by those that were made.
        return min(1.0, self.progress * steps / self.steps) if self.steps else WARM_UP

    @property
    def done(self) -> bool:
        # By epochs and not by steps, since a random phase can make an epoch one step shorter.
        if self.counts_epochs:
            return self.epochs >= self._config.max_epochs
        return self.steps > 0 and self.progress >= 1.0  # what is timed before the first step may take all the time

    def report_due(self) -> bool:
        """Whether it is time for a report within an epoch."""
        if self._config.eval_interval is not None:
            return self.steps % self._config.eval_interval == 0 or (not self.counts_epochs and self.progress >= 1.0)
        if self.reports_epochs:
            return False
        pause = max(1 / REPORTS, self._report_share() / REPORT_SHARE)
        if self._config.minutes is None:
            pause = min(pause, 1 / STEPS_REPORTS)
        if self.progress < min(1.0, self._reported + pause):
            return False
        self._reported = self.progress
        return True

    def _report_share(self) -> float:
        """What a report costs, as a share of the training."""
        if self._config.minutes is not None and self.report_seconds:
            return self.report_seconds / self._seconds
        # What was measured must not decide over what is counted in steps. A forward pass is a third of a step on as
        # many tokens.
        steps = self.n_held_out / 3 * self.steps / max(1, self.tokens)
        total = self._total_steps if self._config.minutes is None else self.steps / max(self.progress, 1e-9)
        return steps / total

    def point_due(self) -> bool:
        """Whether it is time for a point of the curves."""
        before, self._points = self._points, int(self.progress * POINTS + 1e-9)  # rounded
        return self._points > before

    def checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self._config.ckpt_interval is not None:
            return self.steps % self._config.ckpt_interval == 0
        pause = max(CHECKPOINT_SECONDS, self.checkpoint_seconds / CHECKPOINT_SHARE)
        return self.now() - self._checkpointed >= pause

    def reported(self, began: float) -> None:
        """Say that a report that was begun at this time is made."""
        self.report_seconds = self.now() - began
        self.paused += self.report_seconds

    def checkpointed(self, began: float) -> None:
        """Say that a checkpoint that was begun at this time is written."""
        self._checkpointed = self.now()
        self.checkpoint_seconds = self._checkpointed - began
        self.paused += self.checkpoint_seconds

    def state_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in COUNTS}
        return {**counts, "seconds": self.seconds, "reported": self._reported, "points": self._points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in COUNTS:
            setattr(self, name, state[name])
        self._start = self.now() - state["seconds"]
        self._reported, self._points = state["reported"], state["points"]
