"""Programs that show trainings side by side: TensorBoard and Weights & Biases (requirements-track.txt)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.common.files import beside
from custom_llm.common.steps import install
from custom_llm.training.tracking.history import Point

INSTALL = install("track")
# Name of a figure there → attribute of a point.
FIGURES = {
    "loss/training": "loss",
    "loss/held_out": "held_out",
    "loss/bits_per_byte": "bits_per_byte",
    "training/learning_rate": "learning_rate",
    "training/grad_norm": "grad_norm",
    "training/tokens_per_second": "tokens_per_second",
    "training/epoch": "epoch",
}


class TensorBoard:
    """A folder of events for each training, beside the model: `tensorboard --logdir trained_model.tensorboard`."""

    def __init__(self, model_path: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(f"--tracker tensorboard needs a package that is not installed; {INSTALL}") from None
        self._make, self._folder = SummaryWriter, beside(model_path, ".tensorboard")
        if self._folder.exists() and not self._folder.is_dir():
            raise UserError(f"--tracker tensorboard needs a folder of that name; move {self._folder} away")

    def start(self, run: str | None, step: int, settings: Mapping[str, Any]) -> str:
        """Begin, or resume `run` behind `step`; what `run` is to be the next time."""
        name = run or time.strftime("%Y-%m-%d_%H-%M-%S")
        # What was logged behind the step comes again.
        self._writer = self._make(str(self._folder / name), purge_step=step + 1 if run else None)
        if run is None:
            lines = [f"    {key}: {value}" for key, value in settings.items()]  # indented: as it is, in Markdown
            self._writer.add_text("settings", _encodable("\n".join(lines)), 0)
        return name

    def log(self, point: Point) -> None:
        for name, value in figures(point).items():
            self._writer.add_scalar(name, value, point.step)
        if point.sample is not None:
            sample = "\n".join(f"    {line}" for line in point.sample.splitlines())
            self._writer.add_text("sample", _encodable(sample), point.step)

    def flush(self) -> None:
        """Let nothing be lost that was logged so far."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `custom-llm-scripts`; offline if nobody is logged in, to be sent by `wandb sync` later."""

    def __init__(self, model_path: str) -> None:
        try:
            import wandb
        except ImportError:
            wandb = None
        if not hasattr(wandb, "init"):  # wandb's folder of runs can be imported, too
            raise UserError(f"--tracker wandb needs a package that is not installed; {INSTALL}")
        self._wandb, self._model_path = wandb, Path(model_path)

    def start(self, run: str | None, step: int, settings: Mapping[str, Any]) -> str:
        # Without this, it would ask for a key at a terminal and fail elsewhere.
        mode = None if "WANDB_MODE" in os.environ or self._wandb.login(prompt=False) else "offline"
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "custom-llm-scripts"), name=_encodable(self._model_path.stem),
                dir=str(self._model_path.parent), id=run, resume="allow" if run else None, mode=mode,
                config={key: _encodable(str(value)) for key, value in settings.items()},
                settings=self._wandb.Settings(console="off", silent=True, init_timeout=30),
            )  # fmt: skip
        except self._wandb.Error as error:
            raise UserError(f"--tracker wandb: {error}; or set WANDB_MODE=offline") from None
        return self._run.id

    def log(self, point: Point) -> None:
        values: dict[str, Any] = figures(point)
        if point.sample is not None:
            values["sample"] = _encodable(point.sample)
        self._run.log(values, step=point.step)

    def flush(self) -> None:
        """It writes by itself, in another process."""

    def close(self) -> None:
        self._run.finish()


Tracker = TensorBoard | WeightsAndBiases
# Making one raises UserError if its package is not installed, or its folder cannot be.
TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def figures(point: Point) -> dict[str, float]:
    """Name → value, of what was measured."""
    return {name: value for name, key in FIGURES.items() if (value := getattr(point, key)) is not None}


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()
