"""What must not be lost of a training: its best model, and all that `train_llm.py --resume` needs to go on exactly."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from custom_llm.common.errors import UserError
from custom_llm.common.files import beside, write_bytes
from custom_llm.common.steps import command
from custom_llm.config.training import TrainConfig
from custom_llm.model.files import SavedConfig, load_file, save_trained
from custom_llm.training.distributed.parallel import gathered
from custom_llm.training.distributed.processes import Processes
from custom_llm.training.loop import Trainer
from custom_llm.training.tracking.record import Record

VERSION = 4
AGAIN = "start anew without --resume"


@dataclass(frozen=True)
class Checkpoint:
    """What stands in the file."""

    config: dict[str, Any]  # the options of the training
    model: dict[str, Any]  # and of the model, as plain values
    text: str  # the key of the token ids
    trainer: dict[str, Any] = field(default_factory=dict)  # `Trainer.state_dict()`
    best_model: dict[str, torch.Tensor] | None = None  # weights of the lowest held-out loss; None: never measured
    record: dict[str, Any] | None = None  # `Record.state_dict()`
    version: int = VERSION


def checkpoint_path(model_path: str | Path) -> Path:
    """`trained_model.pth` → `trained_model.checkpoint.pth`."""
    return beside(model_path, ".checkpoint.pth")


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file; UserError where there is none, or it is damaged or of another version."""
    if not path.exists():
        raise UserError(
            f"{path} is not there: the first checkpoint is written after a minute, or --ckpt_interval steps, or when a "
            "training ends; start without --resume"
        )
    values = load_file(path, f"a training that is stopped ({command('train_llm')}, Ctrl-C)")
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


class Saver:
    """Saves what must not be lost: the model at its lowest held-out loss, and the whole state of the training.

    describe: the content of `config_path`, which is written with each model.
    """

    def __init__(
        self, training: Checkpoint, config_path: str, model_path: str, processes: Processes, record: Record,
        describe: Callable[[Trainer], SavedConfig],
    ) -> None:  # fmt: skip
        self._training, self._path = training, checkpoint_path(model_path)
        self._config_path, self._model_path = config_path, model_path
        self._processes, self._record, self._describe = processes, record, describe
        self._best_model: dict[str, torch.Tensor] | None = None

    def save_best(self, trainer: Trainer) -> None:
        """Write the model, which is the best so far. All processes call it together."""
        weights = gathered(trainer.model.state_dict(), self._processes)
        with self._processes.raising_together():
            if self._processes.rank == 0:
                # Copied to the CPU, where a machine without a GPU reads them; a matrix of two names is still one.
                copies: dict[int, torch.Tensor] = {}
                self._best_model = {
                    name: copies.setdefault(tensor.data_ptr(), tensor.detach().to("cpu", copy=True))
                    for name, tensor in weights.items()
                }
                self._write_best(trainer)

    def _write_best(self, trainer: Trainer) -> None:
        save_trained(self._model_path, self._best_model, self._config_path, self._describe(trainer))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write the state of the trainer, or raise UserError. Only rank 0 calls it."""
        record = self._record.state_dict()
        checkpoint = replace(self._training, trainer=state, best_model=self._best_model, record=record)
        buffer = io.BytesIO()
        torch.save(dict(vars(checkpoint)), buffer)  # not asdict, which would copy every tensor
        write_bytes(self._path, buffer.getvalue())
        self._record.save()

    def fall_back(self, trainer: Trainer) -> bool:
        """After weights have become no numbers, or nearly so: make a checkpoint of the best model, if there is one."""
        weights = self._processes.shared(lambda: self._best_model)
        if weights is None:
            return False
        trainer.step.begin_anew(weights)
        trainer.save_checkpoint()
        return True

    def resume(self, checkpoint: Checkpoint, trainer: Trainer) -> None:
        """Bring the trainer to where a training was stopped; UserError where that was of another model or text."""
        for name, value in self._training.model.items():
            if checkpoint.model.get(name) != value:
                raise UserError(
                    f"{self._path} is the training of a model with {name} {checkpoint.model.get(name)}, and this one "
                    f"has {value}; {AGAIN}"
                )
        if checkpoint.text != self._training.text:
            raise UserError(f"{self._path} is the training on another text, or on other tokens of it; {AGAIN}")
        own = self._training.config["optimizer"]
        optimizer = checkpoint.config.get("optimizer", own)
        if optimizer != own:
            raise UserError(f"{self._path} is a training with --optimizer {optimizer}; give that, or {AGAIN}")
        try:
            trainer.load_state_dict(checkpoint.trainer)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(f"{self._path} does not hold what this training needs ({error}); {AGAIN}") from None
        self._record.load_state_dict(checkpoint.record)
        self._best_model = checkpoint.best_model
        if self._best_model is not None and self._processes.rank == 0:
            self._write_best(trainer)  # the file may be one that a report at the stop has left
