"""The training loop."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from custom_llm.config import TrainConfig
from custom_llm.errors import UserError
from custom_llm.model import GPTLanguageModel
from custom_llm.progress import Progress
from custom_llm.training.clock import Clock
from custom_llm.training.distributed import ALONE, Processes
from custom_llm.training.interrupt import StopRequest
from custom_llm.training.precision import autocast
from custom_llm.training.random_state import get_random_state, set_random_state
from custom_llm.training.schedule import learning_rate_at
from custom_llm.training.step import Batch, Diverged, Step
from custom_llm.training.tracking.history import History
from custom_llm.training.tracking.sample import in_a_line


class Interrupted(Exception):
    """Training was stopped from outside between two steps; the model holds what it has learnt so far."""


def train_model(
    model: GPTLanguageModel,
    train_loader: Iterable[Batch],
    config: TrainConfig | dict[str, Any],
    device: torch.device,
    validate: Callable[[nn.Module], float] | None = None,
    on_report: Callable[[float], None] | None = None,
    characters_per_token: float = 1.0,
) -> GPTLanguageModel:
    """Train `model` in place and return it, printing one line an epoch or, by the clock, now and then.

    Args:
        train_loader: sized; each pass over it is an epoch of batches (x, y) of token ids, each (B, T).
        config: `learning_rate` and `max_epochs`, or `minutes` or `max_iters` instead of the latter.
        validate: the held-out loss in nats per token, reported in each line.
        on_report: called with each held-out loss, to save the model.
        characters_per_token: of the held-out text, so that losses of different tokenizers can be compared.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, after the step that was under way.
        UserError: the loss is no longer a number.
    """
    c = config if isinstance(config, TrainConfig) else TrainConfig.from_dict(config)
    trainer = Trainer(model, train_loader, c, device, validate, on_report, characters_per_token)
    trainer.run()
    return model


class Trainer:
    """One training, which can be stopped between any two steps and gone on with by another process.

    Its state (`state_dict`) is everything that the rest of the training depends on: on a CPU with the same number of
    threads, weights end the same to the bit however often it was stopped.
    """

    def __init__(
        self,
        model: GPTLanguageModel,
        loader: Iterable[Batch],
        config: TrainConfig,
        device: torch.device,
        validate: Callable[[nn.Module], float] | None = None,
        on_report: Callable[[float], None] | None = None,
        characters_per_token: float = 1.0,
        save: Callable[[dict[str, Any]], None] | None = None,
        processes: Processes = ALONE,
        history: History | None = None,
        write_sample: Callable[[], str | None] | None = None,
    ) -> None:
        """Args:
        loader: sized; to be gone on with, it needs a `WindowSampler`.
        save: called with the state now and then, to write a checkpoint; in rank 0 only.
        processes: those that train the model together; each needs its part of the loader (see `make_loader`).
        history: where the curves are kept (default: a new one).
        write_sample: what the model writes at a report, or None if not every time.

        The others are those of `train_model`.
        """
        self.model, self.loader, self.config, self.processes = model, loader, config, processes
        self._validate, self._on_report, self._save = validate, on_report, save
        self._per_token = characters_per_token
        self.step = Step(model, config, device, processes)
        processes.sum()  # the clock begins now
        self.clock = Clock(config, -(-len(loader) // self._accumulation), processes.now)
        self._losses = _Mean()
        self.history, self._write_sample = history or History(), write_sample

    @property
    def _accumulation(self) -> int:
        return self.config.accumulation(self.model.config.block_size, self.processes.size)

    def run(self) -> None:
        """Train to the end.

        Raises:
            Interrupted, UserError: see `train_model`.
        """
        clock = self.clock
        with Progress() as progress, StopRequest() as stop:
            while not clock.done:
                for batches in self._steps():
                    stops = self._step(batches, progress, stop)
                    if clock.report_due():
                        self._report(progress, clock.epochs + 1)
                    if clock.point_due():
                        self._log()
                    if stops:
                        self._checkpoint()  # before the report, which another process would not have made here
                        self._report(progress, clock.epochs + 1)
                        raise Interrupted
                    if clock.checkpoint_due():
                        self._checkpoint()
                    if clock.done:
                        break
                else:
                    clock.epochs, clock.batches = clock.epochs + 1, 0
                    if clock.counts_epochs and (self.config.eval_interval is None or clock.done):
                        self._report(progress, clock.epochs)
            self._checkpoint()

    def _steps(self) -> Iterable[Sequence[Batch]]:
        """The batches of each step that is left of an epoch."""
        batches = iter(self.loader)
        while step := list(islice(batches, self._accumulation)):
            yield step

    def _step(self, batches: Sequence[Batch], progress: Progress, stop: StopRequest) -> bool:
        """One update on the batches of a step, together; whether the training is to stop after it."""
        c, clock = self.config, self.clock
        rate = learning_rate_at(clock.progress, c.learning_rate, c.min_lr, c.schedule, clock.warm_up)
        try:
            update = self.step(batches, rate)
        except Diverged as error:
            raise UserError(
                f"--learning_rate {c.learning_rate}: {error} at step {clock.steps + 1}; try {c.learning_rate / 10:g}"
            ) from None
        loss = update.loss.item()
        self._losses.add(loss, update.n_tokens)
        self.history.add(loss, update.n_tokens, rate, update.grad_norm)
        clock.add(update.n_tokens, len(batches))
        (wishes,) = self.processes.sum(stop.requested)  # they all stop, or none does
        words = f"loss {loss / update.n_tokens:.3f}, {clock.tokens / clock.seconds:,.0f} tokens/s"
        progress.update(clock.progress, words)
        return wishes > 0

    def _report(self, progress: Progress, epoch: int) -> None:
        """Save and print what there is to say since the last report."""
        if not self._losses.tokens:
            return
        start = self.clock.now()
        line = f"Epoch {epoch}{self.clock.of_epochs}, Loss: {self._losses.pop():.4f}"
        held_out = None
        if self._validate is not None:
            with autocast(self.step.device, self.step.precision):
                held_out = self._validate(self.model)
            bits = held_out / math.log(2) / self._per_token
            line += f", Held-out: {held_out:.4f} ({bits:.3f} bits per character)"
            if self._on_report is not None:
                self._on_report(held_out)
        line += self.step.loads.pop()
        sample = None if self._write_sample is None else self._write_sample()
        self.processes.sum()
        self.clock.reported(start)
        self._log(held_out, sample)
        progress.print(line)  # after saving: who reads it may rely on the file
        if sample is not None:
            progress.print(f"  {in_a_line(sample)}", sys.stderr)

    def _log(self, held_out: float | None = None, sample: str | None = None) -> None:
        """Make a point of the curves."""
        clock = self.clock
        self.history.log(clock, clock.epochs + clock.batches / len(self.loader), held_out, sample)

    def _checkpoint(self) -> None:
        if self._save is not None:
            began = self.clock.now()
            state = self.state_dict()
            with self.processes.together():
                if self.processes.rank == 0:
                    self._save(state)
            self.processes.sum()
            self.clock.checkpointed(began)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on, in tensors and plain values."""
        n_read = self.clock.batches * (self.loader.batch_size or 1)
        return {
            "step": self.step.state_dict(),
            "clock": self.clock.state_dict(),
            "sampler": self.loader.sampler.state_dict(n_read),
            "losses": self._losses.state_dict(),
            "history": self.history.state_dict(),
            "random": self.processes.gather(get_random_state()),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.step.load_state_dict(state["step"])
        self.clock.load_state_dict(state["clock"])
        self.loader.sampler.load_state_dict(state["sampler"])
        self._losses.load_state_dict(state["losses"])
        self.history.load_state_dict(state["history"])
        if self.processes.size == len(state["random"]):  # otherwise it goes on differently anyway
            set_random_state(state["random"][self.processes.rank])
            if self.config.threads is None:
                torch.set_num_threads(state["threads"])  # sums are rounded otherwise by another number


class _Mean:
    """The mean loss per token since it was last asked for."""

    def __init__(self) -> None:
        self._total, self.tokens = 0.0, 0

    def add(self, total: float, n_tokens: int) -> None:
        self._total += total
        self.tokens += n_tokens

    def pop(self) -> float:
        mean = self._total / self.tokens
        self._total, self.tokens = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, float]:
        return {"total": self._total, "tokens": self.tokens}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._total, self.tokens = state["total"], state["tokens"]
