"""What is known of a training before it begins, its figures point by point, and what they came to."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from custom_llm.common.steps import command
from custom_llm.config.training import TrainConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.training.clock import FLOOR, Clock

LONGER = 4  # times, which is worth it after a training that was too short


@dataclass(frozen=True)
class About:
    """For the page and for trackers."""

    model_path: str  # where the weights are written
    corpus: str  # what is learnt from
    n_parameters: int
    dropout: float  # of the model
    command: str  # which trains it
    longer: str  # flags of a training that is longer by LONGER
    tables: Mapping[str, Mapping[str, object]]  # title → name → value


def describe(
    model_path: str, corpus: str, model: GPTLanguageModel, config: TrainConfig, device: torch.device, n_processes: int,
    command: str,
) -> About:  # fmt: skip
    """All options, with what was chosen where nothing was said, and the machine; `command` trains this model."""
    block_size = model.config.block_size
    chosen = {
        "min_lr": FLOOR * config.learning_rate if config.min_lr is None else config.min_lr,
        "total_batch_size": config.accumulation(block_size, n_processes) * config.batch_size * block_size,
        "stride": config.stride or block_size,
        "threads": torch.get_num_threads(),
    }
    machine = {"processor": _processor(), "cores": os.cpu_count()}
    if device.type != "cpu":
        machine["GPU"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    machine |= {"system": platform.platform(), "Python": platform.python_version(), "PyTorch": torch.__version__}
    tables = {"Training": asdict(config) | chosen, "Model": model.config.to_dict(), "Machine": machine}
    end = next((name for name in ("minutes", "max_iters") if getattr(config, name) is not None), "max_epochs")
    longer = f"--{end} {LONGER * getattr(config, end):{'g' if end == 'minutes' else ''}}"
    return About(model_path, corpus, model.n_parameters(), model.config.dropout, command, longer, tables)


def _processor() -> str:
    """As its maker calls it, where the system says so."""
    try:
        if platform.system() == "Darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()


MOST_POINTS = 2000  # of a training; with more of them, as by thousands of epochs, every second one goes
RISE = 1.01  # how far above its lowest the held-out loss ends when a text was memorised
# Where there is more to learn, the second half of a training brings the held-out loss down to this share at least: the
# first while nothing is memorised, so that the training loss is like it, and the other in any case.
FALL, STEEP_FALL = 0.97, 0.93
ALIKE = 0.9  # of the held-out loss; a training loss that is no lower is like it
LAST = 0.1  # share of the tokens that are read last, over which the training loss is taken


@dataclass(frozen=True)
class Point:
    """Where a training is."""

    step: int
    epoch: float  # counts parts of one, too
    tokens: int  # read so far
    seconds: float
    learning_rate: float
    loss: float  # mean in nats per token since the point before
    grad_norm: float  # length of the latest gradient, before it is shortened
    tokens_per_second: float  # since the point before, without the time for reports and checkpoints
    held_out: float | None = None  # loss on the held-out text, where there is a report
    bits_per_byte: float | None = None  # the same for each byte of that text in UTF-8, by which any two models compare
    sample: str | None = None  # what the model wrote then


COLUMNS = tuple(item.name for item in fields(Point) if item.name != "sample")


class History:
    """The points of a training so far."""

    def __init__(self, bytes_per_token: float = 1.0, on_point: Callable[[Point], object] | None = None) -> None:
        """`on_point` is called with each new point, and with one that a report at the same step adds to."""
        self.points: list[Point] = []
        self._per_token, self._on_point = bytes_per_token, on_point
        self._total, self._n_targets = 0.0, 0  # loss, and of how many, since the latest point
        self._seconds = 0.0  # of training until the latest point
        self._rate, self._norm = math.nan, math.nan

    def add(self, total: float, n_targets: int, learning_rate: float, grad_norm: float | torch.Tensor) -> None:
        """Count a step: the sum of its loss in nats, and of how many targets."""
        self._total += total
        self._n_targets += n_targets
        self._rate, self._norm = learning_rate, grad_norm

    def log(self, clock: Clock, epoch: float, held_out: float | None = None, sample: str | None = None) -> None:
        """Make a point of the steps since the one before, or add a report to that one if there were none."""
        bits = None if held_out is None else self.bits_per_byte(held_out)
        if self._n_targets:
            seconds = clock.seconds - clock.paused
            n_tokens = clock.tokens - (self.points[-1].tokens if self.points else 0)
            point = Point(
                clock.steps, epoch, clock.tokens, clock.seconds, self._rate, self._total / self._n_targets,
                float(self._norm), n_tokens / max(seconds - self._seconds, 1e-9), held_out, bits, sample,
            )  # fmt: skip
            self.points.append(point)
            self._total, self._n_targets, self._seconds = 0.0, 0, seconds
        elif self.points and (held_out, sample) != (None, None):
            point = replace(self.points.pop(), held_out=held_out, bits_per_byte=bits, sample=sample)
            self.points.append(point)
        else:
            return
        if len(self.points) > MOST_POINTS:
            self.points = thin(self.points)
        if self._on_point is not None:
            self._on_point(point)

    def bits_per_byte(self, loss: float) -> float:
        """A loss on the held-out text for each byte of it in UTF-8, by which any two models compare."""
        return loss / math.log(2) / self._per_token

    def state_dict(self) -> dict[str, Any]:
        points = [astuple(point) for point in self.points]
        since = (self._total, self._n_targets, self._seconds, self._rate, float(self._norm))
        return {"points": points, "since": since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = [Point(*values) for values in state["points"]]
        self._total, self._n_targets, self._seconds, self._rate, self._norm = state["since"]


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
        values = (getattr(point, name) for name in COLUMNS)
        table.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in values)
    return buffer.getvalue().encode()


def describe_overfitting(points: Sequence[Point], about: About) -> str | None:
    """What to say if the held-out loss rose while the text of the training was learnt ever better; else None."""
    lowest = best(points)
    if lowest is None:
        return None
    last = [point for point in points if point.held_out is not None][-1].held_out
    loss = _last_loss(points)
    if not (last > RISE * lowest.held_out and loss < ALIKE * last):
        return None
    dropout = "--dropout 0.2, " if about.dropout < 0.2 else ""
    return (
        f"From step {lowest.step:,} on the held-out loss rose, from {lowest.held_out:.4f} to {last:.4f}, and the "
        f"training loss came to {loss:.4f}: what the model learnt then, it memorised. {about.model_path} holds "
        f"the weights of step {lowest.step:,}. More text helps most; else {dropout}fewer --n_layer or a smaller "
        f"--n_embd ({command('llm_model')}), or a shorter training."
    )


def describe_underfitting(points: Sequence[Point], about: About) -> str | None:
    """What to say if the held-out loss was still falling at the end; else None."""
    lowest = best(points)
    if lowest is None or lowest.step != points[-1].step:
        return None
    before = best([point for point in points if point.step <= lowest.step / 2])
    fall = FALL if _last_loss(points) >= ALIKE * lowest.held_out else STEEP_FALL
    if before is not None and lowest.held_out > fall * before.held_out:
        return None
    return (
        f"There is more to learn: the held-out loss was still falling at the end, to {lowest.held_out:.4f}. More "
        f"training helps most: {about.command} --resume {about.longer}"
    )


def _last_loss(points: Sequence[Point]) -> float:
    """The mean training loss of the tokens that were read last."""
    begin = (1 - LAST) * points[-1].tokens
    counts = [points[0].tokens, *(after.tokens - before.tokens for before, after in pairwise(points))]
    last = [(point.loss, n) for point, n in zip(points, counts, strict=True) if point.tokens > begin]
    return sum(loss * n for loss, n in last) / sum(n for _, n in last)
