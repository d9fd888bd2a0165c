"""The figures of a training, point by point, from which its curves are drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch

from custom_llm.training.clock import Clock

MOST_POINTS = 2000  # of a training; with more of them, as by thousands of epochs, every second one goes


@dataclass(frozen=True)
class Point:
    """Where a training is.

    Attributes:
        step, epoch, tokens, seconds: done so far; `epoch` counts parts of one, too.
        loss: mean in nats per token since the point before.
        grad_norm: length of the latest gradient, before it is shortened.
        tokens_per_second: since the point before, without the time for reports and checkpoints.
        held_out: loss on the held-out text, where there is a report.
        bits_per_byte: the same for each byte of that text in UTF-8, by which any two models compare.
        sample: what the model wrote then.
    """

    step: int
    epoch: float
    tokens: int
    seconds: float
    learning_rate: float
    loss: float
    grad_norm: float
    tokens_per_second: float
    held_out: float | None = None
    bits_per_byte: float | None = None
    sample: str | None = None


COLUMNS = tuple(item.name for item in fields(Point) if item.name != "sample")


class History:
    """The points of a training so far."""

    def __init__(self, bytes_per_token: float = 1.0, on_point: Callable[[Point], object] | None = None) -> None:
        """Args:
        bytes_per_token: of the held-out text.
        on_point: called with each new point, and with one that a report at the same step adds to.
        """
        self.points: list[Point] = []
        self._per_token, self._on_point = bytes_per_token, on_point
        self._total, self._n_tokens = 0.0, 0  # loss and tokens since the latest point
        self._seconds = 0.0  # of training until the latest point
        self._rate, self._norm = math.nan, math.nan

    def add(self, total: float, n_tokens: int, learning_rate: float, grad_norm: float | torch.Tensor) -> None:
        """Count a step: the sum of its loss in nats, and of how many tokens."""
        self._total += total
        self._n_tokens += n_tokens
        self._rate, self._norm = learning_rate, grad_norm

    def log(self, clock: Clock, epoch: float, held_out: float | None = None, sample: str | None = None) -> None:
        """Make a point of the steps since the one before, or add a report to that one if there were none."""
        bits = None if held_out is None else held_out / math.log(2) / self._per_token
        if self._n_tokens:
            seconds = clock.seconds - clock.paused
            point = Point(
                clock.steps, epoch, clock.tokens, clock.seconds, self._rate, self._total / self._n_tokens,
                float(self._norm), self._n_tokens / max(seconds - self._seconds, 1e-9), held_out, bits, sample,
            )  # fmt: skip
            self.points.append(point)
            self._total, self._n_tokens, self._seconds = 0.0, 0, seconds
        elif self.points and (held_out, sample) != (None, None):
            point = replace(self.points.pop(), held_out=held_out, bits_per_byte=bits, sample=sample)
            self.points.append(point)
        else:
            return
        if len(self.points) > MOST_POINTS:
            self.points = thin(self.points)
        if self._on_point is not None:
            self._on_point(point)

    def state_dict(self) -> dict[str, Any]:
        points = [astuple(point) for point in self.points]
        since = (self._total, self._n_tokens, self._seconds, self._rate, float(self._norm))
        return {"points": points, "since": since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = [Point(*values) for values in state["points"]]
        self._total, self._n_tokens, self._seconds, self._rate, self._norm = state["since"]


def best(points: list[Point]) -> Point | None:
    """The one with the lowest held-out loss, the first of equals; None if that was never measured."""
    measured = [point for point in points if point.held_out is not None and math.isfinite(point.held_out)]
    return min(measured, key=lambda point: point.held_out, default=None)


def thin(points: list[Point]) -> list[Point]:
    """Every second one, its loss being the mean since the one before, and the first, the last and the best one."""
    kept, lowest = {points[0].step, points[-1].step}, best(points)
    if lowest is not None:
        kept.add(lowest.step)
    thinned: list[Point] = []
    total, since = 0.0, 0  # loss and tokens of points that went
    for place, (before, point) in enumerate(pairwise([None, *points])):
        n_tokens = point.tokens - (before.tokens if before else 0)
        total, since = total + point.loss * n_tokens, since + n_tokens
        if place % 2 == 0 or point.step in kept:
            thinned.append(replace(point, loss=total / since))
            total, since = 0.0, 0
    return thinned


def to_csv(points: list[Point]) -> bytes:
    """A table with a head; what was not measured is empty."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(COLUMNS)
    for point in points:
        table.writerow(_shown(getattr(point, name)) for name in COLUMNS)
    return buffer.getvalue().encode()


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
