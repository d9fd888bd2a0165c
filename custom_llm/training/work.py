"""What must not be lost of a training: its best model, and all that is needed to go on with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from custom_llm.config import ModelConfig, TrainConfig
from custom_llm.errors import UserError
from custom_llm.model import GPTLanguageModel
from custom_llm.training.checkpoints import AGAIN, Checkpoint, checkpoint_path, save_checkpoint
from custom_llm.training.distributed import Processes
from custom_llm.training.parallel import gathered
from custom_llm.training.tracking.record import Record
from custom_llm.training.trainer import Trainer


class Work:
    """What must not be lost: the model at its lowest held-out loss, and the whole state of the training."""

    def __init__(
        self, config: TrainConfig, model: ModelConfig, text: str, model_path: str, processes: Processes, record: Record
    ) -> None:
        self._config, self._model, self._text = asdict(config), model.to_dict(), text
        self._path, self._processes, self._record = checkpoint_path(model_path), processes, record
        self.write: Callable[[dict[str, torch.Tensor]], object] = lambda weights: None  # writes the model
        self._best_model: dict[str, torch.Tensor] | None = None

    def can_go_on(self, trainer: Trainer) -> bool:
        """After weights have become no numbers, or nearly so: make a checkpoint of the best model, if there is one."""
        weights = self._processes.shared(lambda: self._best_model)
        if weights is None:
            return False
        trainer.step.begin_anew(weights)
        trainer.save_checkpoint()
        return True

    def keep(self, model: GPTLanguageModel) -> None:
        """Write the model, which is the best so far. All processes call it together."""
        weights = gathered(model.state_dict(), self._processes)
        with self._processes.together():
            if self._processes.rank == 0:
                self._best_model = _copied(weights)  # on the CPU, where a machine without a GPU reads them
                self.write(self._best_model)

    def checkpoint(self, trainer: dict[str, Any]) -> None:
        """Write the state of the training."""
        values = (self._config, self._model, self._text, trainer, self._best_model, self._record.state_dict())
        save_checkpoint(self._path, Checkpoint(*values))
        self._record.save()

    def load(self, begun: Checkpoint, trainer: Trainer) -> None:
        """Go on with a training.

        Raises:
            UserError: it is one of another model or text.
        """
        for name, value in self._model.items():
            if begun.model.get(name) != value:
                raise UserError(
                    f"{self._path} is the training of a model with {name} {begun.model.get(name)}, and this one has "
                    f"{value}; {AGAIN}"
                )
        if begun.text != self._text:
            raise UserError(f"{self._path} is the training on another text, or on other tokens of it; {AGAIN}")
        optimizer = begun.config.get("optimizer", self._config["optimizer"])
        if optimizer != self._config["optimizer"]:
            raise UserError(f"{self._path} is a training with --optimizer {optimizer}; give that, or {AGAIN}")
        try:
            trainer.load_state_dict(begun.trainer)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(f"{self._path} does not hold what this training needs ({error}); {AGAIN}") from None
        self._record.load_state_dict(begun.record)
        self._best_model = begun.best_model
        if self._best_model is not None and self._processes.rank == 0:
            self.write(self._best_model)  # the file may be one that a report at the stop has left


def _copied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same on the CPU; a matrix that has two names is still one."""
    copies: dict[int, torch.Tensor] = {}
    return {
        name: copies.setdefault(tensor.data_ptr(), tensor.detach().to("cpu", copy=True))
        for name, tensor in weights.items()
    }
