"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from custom_llm.config import TrainConfig
from custom_llm.errors import UserError
from custom_llm.model import GPTLanguageModel
from custom_llm.training.interrupt import StopRequest
from custom_llm.training.optimizer import learning_rate_at, make_optimizers, set_learning_rate
from custom_llm.training.progress import Progress

GRAD_CLIP = 1.0
REPORTS = 20


class Interrupted(Exception):
    """Training was stopped from outside between two steps; the model holds what it has learnt so far."""


def train_model(
    model: GPTLanguageModel,
    train_loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    config: TrainConfig | dict[str, Any],
    device: torch.device,
    validate: Callable[[nn.Module], float] | None = None,
    on_epoch: Callable[[float | None], None] | None = None,
) -> GPTLanguageModel:
    """Train `model` in place and return it, printing one line an epoch (on a clock, about REPORTS lines in all).

    Args:
        train_loader: sized; each pass over it is an epoch of batches (x, y) of token ids, each (B, T).
        config: `learning_rate` and `max_epochs`, or `minutes` instead of the latter.
        validate: the held-out loss in nats per token, reported each epoch.
        on_epoch: called after each reported epoch with its held-out loss, and with None when training is stopped, to
            save what there is.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, after the step that was under way.
        UserError: the loss is no longer a number.
    """
    c = config if isinstance(config, TrainConfig) else TrainConfig.from_dict(config)
    model.to(device).train()
    optimizers = make_optimizers(model, c.learning_rate)
    clock = _Clock(c, len(train_loader))
    with Progress() as progress, StopRequest() as stop:
        while not clock.done:
            total_loss = n_tokens = 0
            epoch_start = time.monotonic()
            for x, y in train_loader:
                set_learning_rate(optimizers, learning_rate_at(clock.progress, c.learning_rate))
                loss = _step(model, optimizers, x.to(device), y.to(device))
                if not math.isfinite(loss):
                    raise UserError(
                        f"--learning_rate {c.learning_rate}: the loss became {loss} at step {clock.steps + 1}; "
                        f"try {c.learning_rate / 10:g}"
                    )
                total_loss += loss * y.numel()
                n_tokens += y.numel()
                clock.tick()
                progress.update(clock.progress, loss, n_tokens / (time.monotonic() - epoch_start))
                if clock.done or stop.requested:
                    break
            clock.epochs += 1
            if not (clock.report_due() or stop.requested):
                continue
            line = f"Epoch {clock.epochs}{clock.of_epochs}, Loss: {total_loss / n_tokens:.4f}"
            held_out = None
            if validate is not None and not stop.requested:
                held_out = validate(model)
                line += f", Held-out: {held_out:.4f} ({held_out / math.log(2):.3f} bits per character)"
            if on_epoch is not None:
                on_epoch(held_out)
            progress.print(line)  # after saving: who reads it may rely on the file
            if stop.requested:
                raise Interrupted
    return model


def _step(model: nn.Module, optimizers: list[torch.optim.Optimizer], x: torch.Tensor, y: torch.Tensor) -> float:
    """One update on a batch; the loss before it, in nats per token."""
    _, loss = model(x, y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


class _Clock:
    """How much of a training is done, counted in steps or, with `minutes`, in time."""

    def __init__(self, config: TrainConfig, steps_per_epoch: int) -> None:
        self.steps = self.epochs = 0
        self._max_epochs = config.max_epochs
        self._total_steps = config.max_epochs * steps_per_epoch
        self._seconds = config.minutes and config.minutes * 60
        self._start = time.monotonic()
        self._reported = 0.0

    def tick(self) -> None:
        self.steps += 1

    @property
    def progress(self) -> float:
        if self._seconds:
            return min(1.0, (time.monotonic() - self._start) / self._seconds)
        return min(1.0, self.steps / self._total_steps)

    @property
    def done(self) -> bool:
        # By epochs and not by steps, since a random phase can make an epoch one step shorter.
        return self.progress >= 1.0 if self._seconds else self.epochs >= self._max_epochs

    def report_due(self) -> bool:
        """Whether this epoch gets its line: all do, but on a clock a short text would give thousands."""
        due = not self._seconds or self.done or self.progress - self._reported >= 1 / REPORTS
        if due:
            self._reported = self.progress
        return due

    @property
    def of_epochs(self) -> str:
        return "" if self._seconds else f"/{self._max_epochs}"
