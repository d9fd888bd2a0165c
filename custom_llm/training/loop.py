"""The training loop, and the loss on held-out text that it reports."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.common.logits import windows_per_batch
from custom_llm.common.progress import Progress
from custom_llm.common.signals import StopRequest
from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import begun
from custom_llm.model import GPTLanguageModel
from custom_llm.model.costs import costs_of
from custom_llm.training.clock import Clock, learning_rate_at
from custom_llm.training.display import in_a_line, memory_in_use, peak_of, progress_words
from custom_llm.training.distributed.processes import ALONE, Processes
from custom_llm.training.speed import autocast
from custom_llm.training.step import Batch, Diverged, Step, Update, get_random_state, set_random_state
from custom_llm.training.tracking.history import History

FORWARD_AND_BACKWARD = 3  # operations of both passes, in those of the forward pass
UNSEEN = 10  # updates that a GPU may be behind, as looking at one waits for it


class Interrupted(Exception):
    """Training was stopped from outside between two steps; the model holds what it has learnt so far.

    number: of the signal that did it, or would do so.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def train_model(
    model: GPTLanguageModel, train_loader: Iterable[Batch], config: TrainConfig | dict[str, Any], device: torch.device,
    validate: Callable[[nn.Module], float] | None = None, on_lowest: Callable[[], None] | None = None,
    bytes_per_token: float = 1.0,
) -> GPTLanguageModel:  # fmt: skip
    """Train `model` in place and return it, printing one line an epoch or, by the clock, now and then.

    Raises Interrupted on Ctrl-C or SIGTERM, after the step that was under way, and Diverged, a UserError, when a loss
    or a gradient is no longer a number.

    Args:
        train_loader: sized; each pass over it is an epoch of batches (x, y) of token ids, each (B, T); targets that
            are -100 are not trained on.
        config: `learning_rate` and `max_epochs`, or `minutes` or `max_iters` instead of the latter.
        validate: the held-out loss in nats per token, reported in each line.
        on_lowest: called while the model has the weights of the lowest held-out loss so far, to save them.
        bytes_per_token: of the held-out text in UTF-8, so that losses of different tokenizers can be compared.
    """
    c = config if isinstance(config, TrainConfig) else TrainConfig.from_dict(config)
    saved = on_lowest and (lambda trainer: on_lowest())
    Trainer(model, train_loader, c, device, validate, on_lowest=saved, history=History(bytes_per_token)).run()
    return model


@dataclass
class Best:
    """The lowest held-out loss of a training, and when it was reported."""

    loss: float = math.inf  # in nats per token
    step: int = 0
    epoch: int = 0  # which was under way, from 1
    since: int = 0  # reports after that one
    last: float = math.inf  # the latest held-out loss

    def add(self, loss: float, step: int, epoch: int) -> bool:
        """Count a report, and say whether its loss is the lowest so far."""
        self.last = loss
        if loss < self.loss:
            self.loss, self.step, self.epoch, self.since = loss, step, epoch, 0
            return True
        self.since += 1
        return False


class Trainer:
    """One training, which can be stopped between any two steps and resumed by another process.

    Its state (`state_dict`) is everything that the rest of the training depends on: on a CPU with the same number of
    threads, weights end the same to the bit however often it was stopped.

    Args (others as of `train_model`):
        loader: to be resumed, it needs a `WindowSampler`; each of several processes has its part (see `WindowLoader`).
        n_held_out: tokens that `validate` reads.
        save: called with the state now and then, to write a checkpoint; in rank 0 only.
        write_sample: what the model writes at a report, or None if not every time.
        general: the loss on text that has nothing to do with that of the training, of a model that knows some already;
            None: the model knows nothing yet.
    """

    def __init__(
        self, model: GPTLanguageModel, loader: Iterable[Batch], config: TrainConfig, device: torch.device,
        validate: Callable[[nn.Module], float] | None = None, *, n_held_out: int = 0,
        on_lowest: Callable[[Trainer], object] | None = None, save: Callable[[dict[str, Any]], object] | None = None,
        history: History | None = None, write_sample: Callable[[], str | None] | None = None,
        processes: Processes = ALONE, general: Callable[[nn.Module], float] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.loader, self.config, self.processes = model, loader, config, processes
        self._validate, self._on_lowest, self._save, self._write_sample = validate, on_lowest, save, write_sample
        self.step = Step(model, config, device, processes)
        self.general = general
        window = config.window or model.config.block_size
        self._n_batches = config.accumulation(window, processes.size)  # of a step
        processes.sum()  # the clock begins now
        self.clock = Clock(config, -(-len(loader) // self._n_batches), processes.now, n_held_out, general is not None)
        self.best = Best()
        self.before: dict[str, float] = {}  # losses of a base before the first step: held_out, general
        self.history = History() if history is None else history
        self._updates: deque[tuple[int, float, Update]] = deque()  # not looked at yet; with number and learning rate
        self._loss, self._n_targets = 0.0, 0  # sum of the losses since the last report, in nats, and of how many
        self._last_loss = math.nan  # of the latest update, per target
        passes = FORWARD_AND_BACKWARD - config.is_partial  # frozen weights have no gradients
        self._operations = passes * costs_of(replace(model.config, block_size=window)).flops  # of a token

    def try_base(self) -> None:
        """Before the first step: how good the model is already. Nothing worse than that will be its best."""
        with autocast(self.step.device, self.step.precision):
            self.before = {"held_out": self._validate(self.model), "general": self.general(self.model)}
        if self.best.add(self.before["held_out"], 0, 0) and self._on_lowest is not None:
            self._on_lowest(self)

    def run(self, stops: Callable[[], bool] = lambda: False) -> None:
        """Train to the end, unless Interrupted or Diverged is raised (see `train_model`), or `stops` says so."""
        clock = self.clock
        with Progress() as progress, StopRequest(stops) as stop:
            while not self.done:
                loader = iter(self.loader)
                while batches := list(islice(loader, self._n_batches)):
                    is_last = self._step(batches, progress, stop)
                    if clock.report_due():
                        self._report(progress, clock.epochs + 1)
                    if clock.point_due():
                        self._log()
                    if is_last:
                        self.save_checkpoint()  # before the report, which another process would not have made here
                        self._report(progress, clock.epochs + 1)
                        raise Interrupted(stop.requested or signal.SIGTERM)  # another process was told
                    if clock.checkpoint_due():
                        self.save_checkpoint()
                    if self.done:
                        break
                else:
                    clock.epochs, clock.batches = clock.epochs + 1, 0
                    if clock.reports_epochs or (clock.counts_epochs and clock.done):
                        self._report(progress, clock.epochs)
            self._report(progress, clock.epochs + 1)  # if the time was over just after it was asked for a report
            self.save_checkpoint()

    @property
    def done(self) -> bool:
        """Whether the training is at its end, or was without a new lowest held-out loss for too long."""
        patience = self.config.patience
        return self.clock.done or bool(patience and self.best.since >= patience)

    def _step(self, batches: Sequence[Batch], progress: Progress, stop: StopRequest) -> bool:
        """One update on the batches of a step, together; whether the training is to stop after it."""
        c, clock = self.config, self.clock
        rate = learning_rate_at(clock.progress, c.learning_rate, c.min_lr, c.schedule, clock.warm_up)
        with self._explaining(clock.steps + 1):
            update = self.step(batches, rate)
        clock.add(sum(x.numel() for x, _ in batches), len(batches))
        wishes = stop.requested or self.processes.is_orphan
        (wishes,) = self.processes.sum(bool(wishes))  # they all stop, or none does
        self._updates.append((clock.steps, rate, update))
        if self.step.device.type == "cpu" or len(self._updates) >= UNSEEN:
            self._look()
            progress.update(clock.progress, self._words)
        return wishes > 0

    def _words(self) -> str:
        held_out = self.best.last if math.isfinite(self.best.last) else None
        device = self.step.device
        peak = peak_of(device, self.step.precision)
        peak = peak and peak * self.processes.size
        return progress_words(self._last_loss, held_out, self.clock, memory_in_use(device), self._operations, peak)

    def _look(self) -> None:
        """Wait for the updates that were begun, and count their losses; Diverged where one is no longer a number."""
        while self._updates:
            number, rate, update = self._updates.popleft()
            with self._explaining(number):
                update.check()
            loss = update.loss.item()
            self._loss, self._n_targets = self._loss + loss, self._n_targets + update.n_targets
            self.history.add(loss, update.n_targets, rate, update.grad_norm)
            self._last_loss = loss / max(1, update.n_targets)

    @contextlib.contextmanager
    def _explaining(self, step: int) -> Iterator[None]:
        """Say what to do about a loss that is no longer a number."""
        rate = self.config.learning_rate
        try:
            yield
        except Diverged as error:
            self._updates.clear()  # they were made with what came of this one
            raise Diverged(f"--learning_rate {rate}: {error} at step {step}; try {rate / 10:g}") from None

    def _report(self, progress: Progress, epoch: int) -> None:
        """Save and print what there is to say since the last report."""
        self._look()
        if not self._n_targets:
            return
        start = self.clock.now()
        of_epochs = f"/{self.config.max_epochs}" if self.clock.counts_epochs else ""
        line = f"Epoch {epoch}{of_epochs}, Loss: {self._loss / self._n_targets:.4f}"
        self._loss, self._n_targets = 0.0, 0
        held_out = None
        if self._validate is not None:
            with self.step.averaged(), autocast(self.step.device, self.step.precision):
                held_out = self._validate(self.model)
                if self.best.add(held_out, self.clock.steps, epoch) and self._on_lowest is not None:
                    self._on_lowest(self)
            line += f", Held-out: {held_out:.4f} ({self.history.bits_per_byte(held_out):.3f} bits per byte)"
        line += self.step.expert_use.pop()
        # Frozen matrices in bfloat16 would be made float32 for each token.
        casts = self.config.is_partial and self.step.precision == "bfloat16"
        with self.step.averaged(), autocast(self.step.device, "bfloat16" if casts else "float32"):
            sample = None if self._write_sample is None else self._write_sample()
        self.processes.sum()
        self.clock.reported(start)
        self._log(held_out, sample)
        progress.print(line)  # after saving: who reads it may rely on the file
        if sample is not None:
            progress.print(f"  {in_a_line(sample)}", sys.stderr)

    def _log(self, held_out: float | None = None, sample: str | None = None) -> None:
        """Make a point of the curves."""
        self._look()
        clock = self.clock
        self.history.log(clock, clock.epochs + clock.batches / len(self.loader), held_out, sample)

    def save_checkpoint(self) -> None:
        """Hand the state to `save`."""
        self._look()  # what is no number must not be saved
        if self._save is not None:
            began = self.clock.now()
            state = self.state_dict()
            with self.processes.raising_together():
                if self.processes.rank == 0:
                    self._save(state)
            self.processes.sum()
            self.clock.checkpointed(began)

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on, in tensors and plain values."""
        return {
            "step": self.step.state_dict(),
            "clock": self.clock.state_dict(),
            "sampler": self.loader.sampler.state_dict(self.clock.batches * self.loader.batch_size),
            "losses": {"total": self._loss, "tokens": self._n_targets},
            "history": self.history.state_dict(),
            "before": self.before,
            "lowest": asdict(self.best),
            "random": self.processes.gather(get_random_state()),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.step.load_state_dict(state["step"])
        self.clock.load_state_dict(state["clock"])
        self.loader.sampler.load_state_dict(state["sampler"])
        self.clock.batches = -(-state["sampler"]["read"] // self.loader.batch_size)  # of the size they have now
        self._loss, self._n_targets = state["losses"]["total"], state["losses"]["tokens"]
        self.history.load_state_dict(state["history"])
        self.best, self.before = Best(**state["lowest"]), state["before"]
        if self.processes.size == len(state["random"]):  # otherwise it goes on differently anyway
            set_random_state(state["random"][self.processes.rank])
            if self.config.threads is None:
                torch.set_num_threads(state["threads"])  # sums are rounded otherwise by another number


@torch.no_grad()
def held_out_loss(
    model: GPTLanguageModel, data: torch.Tensor, processes: Processes = ALONE, window: int | None = None,
    begin: int | None = None,
) -> float:  # fmt: skip
    """Mean cross-entropy in nats over every token of `data`, int64 (n,), but the first, read in windows side by side.

    The processes share the work: all of them call the model equally often, and get the same loss.

    Args:
        window: tokens of a window (default: as many as the model reads).
        begin: the token that each window begins with, if the model expects one (`data.dataset.begun`).
    """
    was_training, block_size = model.training, window or model.config.block_size
    model.eval()
    device = next(model.parameters()).device
    whole = (len(data) - 1) // block_size * block_size  # tokens in windows of full length
    inputs, targets = data[:whole].view(-1, block_size), data[1 : whole + 1].view(-1, block_size)
    rows = windows_per_batch(block_size, model.config.vocab_size)
    batches = list(zip(inputs.split(rows), targets.split(rows), strict=True))
    if whole < len(data) - 1:
        batches.append((data[None, whole:-1], data[None, whole + 1 :]))
    total = 0.0
    for start in range(0, len(batches), processes.size):
        mine = start + processes.rank
        x, y = batches[min(mine, len(batches) - 1)]
        logits, _ = model(begun(x, begin).to(device))
        if mine < len(batches):
            total += F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten(), reduction="sum").item()
    model.train(was_training)
    (total,) = processes.sum(total)
    return total / (len(data) - 1)
