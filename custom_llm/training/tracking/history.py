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

from custom_llm.common.files import beside
from custom_llm.common.steps import command
from custom_llm.config.model import ModelConfig
from custom_llm.config.training import TrainConfig
from custom_llm.data.token_file import Tokens
from custom_llm.model import GPTLanguageModel
from custom_llm.model.files import Origin
from custom_llm.training.clock import FLOOR, Clock
from custom_llm.training.display import pieces_of

LONGER = 4  # times, which is worth it after a training that was too short


@dataclass(frozen=True)
class About:
    """For the page and for trackers."""

    model_path: str  # where the weights are written
    corpus: str  # what is learnt from
    n_parameters: int
    vocab_size: int
    unit: str  # what its tokens are: characters, …
    longer: str  # the command that goes on with the training, to be longer by LONGER
    less: str  # commands for a model that memorises less
    gentler: str  # the command of a training by smaller steps
    tables: Mapping[str, Mapping[str, object]]  # title → name → value
    pieces: Sequence[str] = ()  # the beginning of the text, token by token
    gain: Sequence[str] = ()  # lines about what a training from a base has gained and lost


def describe(
    model_path: str, config_path: str, corpus: str, tokens: Tokens, model: GPTLanguageModel, config: TrainConfig,
    device: torch.device, n_processes: int, train: str, base: Origin | None = None,
) -> About:  # fmt: skip
    """All options, with what was chosen where nothing was said, and the machine; the command `train` trains a model."""
    block_size = config.window or model.config.block_size
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
    most = next(item.metadata["high"] for item in fields(config) if item.name == end)
    longer = f"{train} --resume --{end} {min(most, LONGER * getattr(config, end)):{'g' if end == 'minutes' else ''}}"
    if base is not None and end == "minutes":  # which epochs end as well
        longer += f" --max_epochs {LONGER * config.max_epochs}"
    again = command("train_llm", "--config", str(beside(model_path, ".yaml")))
    less = _memorising_less(config_path, model.config, again) if base is None else _changing_less(config, again)
    unit = "characters" if tokens.tokenizer.kind == "char" else "pieces of words"
    return About(
        model_path, corpus, model.n_parameters(), model.config.vocab_size, unit, longer,
        less, f"{again} --learning_rate {config.learning_rate / 3:.1g}",
        tables, pieces_of(tokens.ids, tokens.tokenizer),
    )  # fmt: skip


def _changing_less(config: TrainConfig, again: str) -> str:
    """The command of a training that leaves more of a base as it is."""
    return f"{again} --learning_rate {config.learning_rate / 2:.2g}" if config.lora else f"{again} --lora 16"


def _memorising_less(config_path: str, model: ModelConfig, again: str) -> str:
    """Commands for a model that memorises less, whose training the command `again` repeats."""
    options = beside(config_path, ".yaml")  # of step 1
    if model.layer_configs is not None or not options.is_file():
        return f"{command('llm_model', '--config_path', config_path)} asks for a smaller model or more dropout"
    less = ["--dropout", "0.2"] if model.dropout < 0.2 else ["--n_layer", f"{max(1, model.n_layer // 2)}"]
    return f"{command('llm_model', '--config', str(options), *less)} and then {again}"


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
