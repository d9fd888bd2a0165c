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
from custom_llm.progress import Progress
from custom_llm.training.interrupt import StopRequest
from custom_llm.training.loads import ExpertLoads
from custom_llm.training.optimizer import learning_rate_at, make_optimizers, set_learning_rate

GRAD_CLIP = 1.0
REPORTS = 10  # at most, in a training by the clock, and
REPORT_SHARE = 0.05  # of its time that goes into them


class Interrupted(Exception):
    """Training was stopped from outside between two steps; the model holds what it has learnt so far."""


def train_model(
    model: GPTLanguageModel,
    train_loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    config: TrainConfig | dict[str, Any],
    device: torch.device,
    validate: Callable[[nn.Module], float] | None = None,
    on_report: Callable[[float], None] | None = None,
    characters_per_token: float = 1.0,
) -> GPTLanguageModel:
    """Train `model` in place and return it, printing one line an epoch or, by the clock, now and then.

    Args:
        train_loader: sized; each pass over it is an epoch of batches (x, y) of token ids, each (B, T).
        config: `learning_rate` and `max_epochs`, or `minutes` instead of the latter.
        validate: the held-out loss in nats per token, reported in each line.
        on_report: called with each held-out loss, to save the model.
        characters_per_token: of the held-out text, so that losses of different tokenizers can be compared.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, after the step that was under way.
        UserError: the loss is no longer a number.
    """
    c = config if isinstance(config, TrainConfig) else TrainConfig.from_dict(config)
    model.to(device).train()
    optimizers = make_optimizers(model, c.learning_rate)
    clock = _Clock(c, len(train_loader))
    losses, loads = _Mean(), ExpertLoads(model)

    def report(progress: Progress, epoch: int) -> None:
        """Save and print what there is to say since the last report."""
        start = time.monotonic()
        line = f"Epoch {epoch}{clock.of_epochs}, Loss: {losses.pop():.4f}"
        if validate is not None:
            held_out = validate(model)
            line += (
                f", Held-out: {held_out:.4f} ({held_out / math.log(2) / characters_per_token:.3f} bits per character)"
            )
            if on_report is not None:
                on_report(held_out)
        line += loads.pop()
        clock.report_seconds = time.monotonic() - start
        progress.print(line)  # after saving: who reads it may rely on the file

    with Progress() as progress, StopRequest() as stop:
        while not clock.done:
            for x, y in train_loader:
                set_learning_rate(optimizers, learning_rate_at(clock.progress, c.learning_rate))
                loss = _step(model, optimizers, loads, x.to(device), y.to(device))
                if not math.isfinite(loss):
                    raise UserError(
                        f"--learning_rate {c.learning_rate}: the loss became {loss} at step {clock.steps + 1}; "
                        f"try {c.learning_rate / 10:g}"
                    )
                losses.add(loss, y.numel())
                clock.steps += 1
                clock.tokens += y.numel()
                speed = clock.tokens / progress.seconds
                progress.update(clock.progress, f"loss {loss:.3f}, {speed:,.0f} tokens/s")
                if clock.report_due() or stop.requested:
                    report(progress, clock.epochs + 1)
                if stop.requested:
                    raise Interrupted
                if clock.done:
                    break
            clock.epochs += 1
            if clock.counts_epochs:
                report(progress, clock.epochs)
    return model


def _step(
    model: GPTLanguageModel,
    optimizers: list[torch.optim.Optimizer],
    loads: ExpertLoads,
    x: torch.Tensor,
    y: torch.Tensor,
) -> float:
    """One update on a batch; the loss before it, in nats per token, without what balances the experts."""
    _, loss = model(x, y)
    (loss + model.balance_loss()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    loads.add()
    model.rebalance()
    return loss.item()


class _Mean:
    """The mean loss per token since it was last asked for."""

    def __init__(self) -> None:
        self._total = self._tokens = 0

    def add(self, loss: float, n_tokens: int) -> None:
        self._total += loss * n_tokens
        self._tokens += n_tokens

    def pop(self) -> float:
        mean = self._total / self._tokens if self._tokens else math.nan
        self._total = self._tokens = 0
        return mean


class _Clock:
    """How much of a training is done, counted in epochs or, with `minutes`, in time."""

    def __init__(self, config: TrainConfig, steps_per_epoch: int) -> None:
        self.steps = self.epochs = self.tokens = 0  # finished ones
        self.counts_epochs = config.minutes is None
        self._max_epochs = config.max_epochs
        self._total_steps = config.max_epochs * steps_per_epoch
        self._seconds = 60 * (config.minutes or 0)
        self._start = time.monotonic()
        self._reported = 0.0
        self.report_seconds = 0.0  # what the last one took

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        if self.counts_epochs:
            return min(1.0, self.steps / self._total_steps)
        return min(1.0, (time.monotonic() - self._start) / self._seconds)

    @property
    def done(self) -> bool:
        # By epochs and not by steps, since a random phase can make an epoch one step shorter.
        return self.epochs >= self._max_epochs if self.counts_epochs else self.progress >= 1.0

    def report_due(self) -> bool:
        """Whether, in a training by the clock, it is time for one of REPORTS reports."""
        if self.counts_epochs:
            return False
        pause = max(1 / REPORTS, self.report_seconds / (REPORT_SHARE * self._seconds))
        if self.progress < min(1.0, self._reported + pause):
            return False
        self._reported = self.progress
        return True

    @property
    def of_epochs(self) -> str:
        return f"/{self._max_epochs}" if self.counts_epochs else ""
