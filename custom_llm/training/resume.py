"""What must not be lost of a training: its best model, and all that `train_llm.py --resume` needs to go on exactly."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from custom_llm.common.errors import UserError
from custom_llm.common.files import beside, check_distinct, locked, write_bytes
from custom_llm.common.notes import note, say
from custom_llm.common.steps import command
from custom_llm.model.archive import Label, label_of, to_bytes
from custom_llm.model.earlier import EarlierModel
from custom_llm.model.files import SavedConfig, check_weights, is_state_dict, load_model, save_trained
from custom_llm.model.lora import trained_state
from custom_llm.training.checkpoint import AGAIN, Checkpoint, checkpoint_path, form_of_state, maybe, misfit
from custom_llm.training.distributed.parallel import gathered
from custom_llm.training.distributed.processes import Processes
from custom_llm.training.loop import Trainer
from custom_llm.training.tracking.record import Record

Weights = dict[str, torch.Tensor]
PATIENCE, PAUSE = 60.0, 1.0  # seconds that the last writing is tried for, and between two times


def adapter_path(model_path: str | Path) -> Path:
    """`trained_model.pth` → `trained_model.lora.pth`."""
    return beside(model_path, ".lora.pth")


@contextlib.contextmanager
def only_training(config_path: str, model_path: str, processes: Processes) -> Iterator[None]:
    """While entered, no other training writes these files; UserError says who does."""
    other = command("llm_model", "--config_path", "other_config.pth")
    then = command("train_llm", "--config_path", "other_config.pth", "--model_path", "other_model.pth")
    check_distinct(config_path=config_path, model_path=model_path)
    with contextlib.ExitStack() as held:
        with processes.raising_together():
            if processes.rank == 0:
                for path in (config_path, model_path):
                    held.enter_context(locked(path, f"wait for it, or give this one names of its own: {other}, {then}"))
        yield


class Saver:
    """Saves what must not be lost: the model at its lowest held-out loss, and the whole state of the training.

    What cannot be written, as to a full disk, is tried again at the next chance, and the training goes on.

    describe: the content of `config_path`, which is written with each model. command: what trains this model again.
    complete: all weights of a model, of those that training has changed. adapter: the content of a file of those of
    LoRA, beside the model; None where there are none.
    """

    def __init__(
        self, training: Checkpoint, config_path: str, model_path: str, processes: Processes, record: Record,
        describe: Callable[[Trainer, str], SavedConfig], command: str,
        complete: Callable[[Weights], Weights] = dict,
        adapter: Callable[[Weights], dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        self._training = replace(training, training_id=training.identify())
        self._path, self._config_path, self._model_path = checkpoint_path(model_path), config_path, model_path
        self._processes, self._record, self._describe, self._command = processes, record, describe, command
        self._complete, self._adapter = complete, adapter
        self._best_model: Weights | None = None  # what training has changed of it
        self._about: SavedConfig | None = None  # that model
        self._ahead: SavedConfig | None = None  # the model in the file, where that has come further than the checkpoint
        # Name of a file that could not be written → what writes it, and why it failed.
        self._unwritten: dict[str, tuple[Callable[[], None], UserError]] = {}

    def save_best(self, trainer: Trainer) -> None:
        """Write the model, which is the best so far. All processes call it together."""
        weights = gathered(trained_state(trainer.model), self._processes)
        if self._processes.rank == 0:
            # Copied to the CPU, where a machine without a GPU reads them; a matrix of two names is still one.
            copies: dict[int, torch.Tensor] = {}
            self._best_model = {
                name: copies.setdefault(tensor.data_ptr(), tensor.detach().to("cpu", copy=True))
                for name, tensor in weights.items()
            }
            if self._ahead is None or trainer.best.loss <= self._ahead.training.held_out_loss:
                self._ahead = None
                self._about = self.describe(trainer)
                self._write(self._model_path, self._write_best)

    def describe(self, trainer: Trainer, text: str = "") -> SavedConfig:
        """The content of the configuration for the model that is written; `text` is the model's."""
        if self._ahead is not None:
            return replace(self._ahead, training=replace(self._ahead.training, text=text))
        return replace(self._describe(trainer, text), training_id=self._training.training_id)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write the state of the trainer. Only rank 0 calls it."""
        record = self._record.state_dict()
        checkpoint = replace(self._training, trainer=state, best_model=self._best_model, record=record)
        content = checkpoint.to_bytes()  # now: tensors of the state change with the next step
        self._write(str(self._path), lambda: write_bytes(self._path, content))
        if self._model_path in self._unwritten:
            self._write(self._model_path, self._write_best)
        self._record.save()

    def settle(self, trainer: Trainer) -> None:
        """At the end: write what could not be written, trying for a minute; UserError says how to get it then."""
        with self._processes.raising_together():
            end = time.monotonic() + PATIENCE
            if self._unwritten:
                say(f"waiting for room to write {' and '.join(self._unwritten)}")
            while self._unwritten:
                for path, (write, _) in list(self._unwritten.items()):
                    self._write(path, write)
                if self._unwritten and time.monotonic() > end:
                    has_checkpoint = self._path.exists()
                    again = f"{self._command} --resume goes on from the last checkpoint"
                    _, error = next(iter(self._unwritten.values()))
                    raise UserError(f"{error}; make room there, then {again if has_checkpoint else self._command}")
                time.sleep(PAUSE if self._unwritten else 0)
        if self._ahead is not None:  # nothing was better since
            known, best = self._ahead.training, trainer.best
            best.loss, best.step, best.epoch = known.held_out_loss, known.kept_step, math.ceil(known.epochs)

    def _write_best(self) -> None:
        save_trained(self._model_path, self._complete(self._best_model), self._config_path, self._about)
        if self._adapter is not None:
            label = Label("adapter", self._about.training_id)
            write_bytes(adapter_path(self._model_path), to_bytes(self._adapter(self._best_model), label))

    def _write(self, path: str, write: Callable[[], None]) -> None:
        """Write a file; what fails is said when it begins and when it is over."""
        try:
            write()
        except UserError as error:
            if path not in self._unwritten:
                note(f"{error}; the training goes on, and tries again at its next report or checkpoint")
            self._unwritten[path] = write, error
        else:
            if self._unwritten.pop(path, None):
                say(f"{path} is written now")

    def fall_back(self, trainer: Trainer) -> bool:
        """After weights have become no numbers, or nearly so: make a checkpoint of the best model, if there is one."""
        weights = self._processes.shared(lambda: self._best_model)
        if weights is None:
            return False
        trainer.step.begin_anew(weights)
        trainer.save_checkpoint()
        self.settle(trainer)
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
        for name in ("optimizer", "lora", "lora_alpha", "lora_targets", "train_layers"):
            own = self._training.config[name]
            known = checkpoint.config.get(name, own)
            if known != own:
                flag = f"without --{name}" if known is None else f"with --{name} {known}"
                raise UserError(f"{self._path} is a training {flag}; resume it so, or {AGAIN}")
        form = form_of_state(trainer)
        wrong = misfit(checkpoint.trainer, form, "trainer")
        best = checkpoint.best_model
        if wrong is None and self._training.is_partial:
            wrong = misfit(best, maybe(form["step"]["model"]), "best_model")
        elif wrong is None and not (best is None or is_state_dict(best)):
            wrong = "best_model"
        if wrong is not None:
            raise UserError(f"{self._path} does not hold what this training needs: {wrong} is something else; {AGAIN}")
        if best is not None and not self._training.is_partial:
            check_weights(best, trainer.model.config, self._path, self._config_path)
        try:
            trainer.load_state_dict(checkpoint.trainer)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(f"{self._path} does not hold what this training needs ({error}); {AGAIN}") from None
        self._record.load_state_dict(checkpoint.record)
        self._training = replace(self._training, training_id=checkpoint.training_id or self._training.training_id)
        self._best_model = checkpoint.best_model
        with self._processes.raising_together():
            if self._best_model is not None and self._processes.rank == 0:
                with torch.random.fork_rng(devices=[]):  # which is where the training was stopped; a new model draws
                    self._bring_back(trainer)

    def _bring_back(self, trainer: Trainer) -> None:
        """Write the best model of the checkpoint, unless the one that is there is of this training, and better."""
        self._about = self.describe(trainer)
        with contextlib.suppress(UserError):  # missing, damaged, or of two trainings
            there = load_model(self._model_path, self._config_path)[1]
            known, own = there.training, self._training.training_id
            is_known = there.training_id == own and None not in (known.held_out_loss, known.kept_step, known.epochs)
            if is_known and known.held_out_loss < trainer.best.loss:
                self._ahead = there
                return
        if label_of(Path(self._model_path)).training not in ("", self._training.training_id):
            EarlierModel(self._model_path, self._config_path, ask=False).set_aside()
        self._write_best()
