"""A training in a file, to be gone on with by `train_llm.py --resume`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from custom_llm.config import TrainConfig
from custom_llm.errors import UserError
from custom_llm.files import beside, write_bytes
from custom_llm.model.checkpoint import load_file

VERSION = 4
AGAIN = "start anew without --resume"


@dataclass(frozen=True)
class Checkpoint:
    """What stands in the file.

    Attributes:
        config, model: the options of the training and of the model, as plain values.
        text: the key of the token ids.
        trainer: `Trainer.state_dict()`.
        best_model: the weights of the lowest held-out loss so far; None if that was never measured.
        record: `Record.state_dict()`.
    """

    config: dict[str, Any]
    model: dict[str, Any]
    text: str
    trainer: dict[str, Any]
    best_model: dict[str, torch.Tensor] | None = None
    record: dict[str, Any] | None = None
    version: int = VERSION


def checkpoint_path(model_path: str | Path) -> Path:
    """`trained_model.pth` → `trained_model.checkpoint.pth`."""
    return beside(model_path, ".checkpoint.pth")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    buffer = io.BytesIO()
    # Not asdict, which would copy every tensor.
    torch.save(dict(vars(checkpoint)), buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: there is none, or it is damaged or of another version.
    """
    if not path.exists():
        raise UserError(
            f"{path} is not there: the first checkpoint is written after a minute, or --ckpt_interval steps, or when a "
            "training ends; start without --resume"
        )
    values = load_file(path, "a training that is stopped (python train_llm.py, Ctrl-C)")
    maybe = (dict, type(None))
    kinds = {"config": dict, "model": dict, "text": str, "trainer": dict, "best_model": maybe, "record": maybe}
    fits = isinstance(values, dict) and all(isinstance(values.get(name), kind) for name, kind in kinds.items())
    if not fits or values.get("version") != VERSION:
        raise UserError(f"{path} is no checkpoint of a training, or of another version; {AGAIN}")
    try:
        TrainConfig(**values["config"])  # options may come and go
        return Checkpoint(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is no checkpoint of this version ({error}); {AGAIN}") from None
