"""One update of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from custom_llm.common.errors import UserError, is_out_of_memory
from custom_llm.common.notes import say
from custom_llm.common.steps import step
from custom_llm.config.training import TrainConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.model.lora import keep_frozen, trained_state
from custom_llm.model.loss import NOT_TRAINED_ON
from custom_llm.training.distributed.parallel import (
    gathered,
    is_divided,
    load_model_state,
    parallelize,
    send_gradients,
    whole,
)
from custom_llm.training.distributed.processes import ALONE, Processes
from custom_llm.training.optim.ema import Average
from custom_llm.training.optim.optimizers import make_optimizers, set_learning_rate
from custom_llm.training.speed import CudaGraphPass, autocast, compiled, in_bfloat16, keep_memory, precisions_of

Batch = tuple[torch.Tensor, torch.Tensor]


class Diverged(UserError):
    """A loss or a gradient is no longer a number."""


@dataclass(frozen=True)
class Update:
    """What an update was made from; the tensors are scalars on the device of the model."""

    loss: torch.Tensor  # of all its targets together, in nats
    n_targets: int  # the tokens that are trained on
    grad_norm: torch.Tensor  # length of the gradient before it was shortened

    def check(self) -> None:
        """Raise Diverged unless these are finite; on a GPU, after waiting for it."""
        if not math.isfinite(self.loss):
            raise Diverged(f"the loss became {self.loss / self.n_targets:g}")
        if not math.isfinite(self.grad_norm):
            raise Diverged(f"the length of the gradient became {self.grad_norm:g}")


class ExpertUse:
    """For how many tokens each expert of a model was chosen since it was last asked for."""

    def __init__(self, model: GPTLanguageModel) -> None:
        self._mixtures = model.mixtures
        self._counts = [mixture.load.clone() for mixture in self._mixtures]  # a tensor for each layer of experts

    def add(self) -> None:
        """Count the tokens of a step; to be called before `rebalance`, which counts anew."""
        for count, mixture in zip(self._counts, self._mixtures, strict=True):
            count += mixture.load

    def pop(self) -> str:
        """What to say about them at the end of a line; nothing for a model without experts.

        The busiest is measured against the mean of its layer.
        """
        counts = [count for count in self._counts if count.any()]
        if not counts:
            return ""
        busiest = max((count.max() * len(count) / count.sum()).item() for count in counts)
        idle = sum((count == 0).sum().item() for count in counts)
        n = sum(map(len, counts))
        for count in counts:
            count.zero_()
        return f", Experts: busiest {busiest:.2f} × the mean, {idle} of {n} idle"

    def state_dict(self) -> list[torch.Tensor]:
        return self._counts

    def load_state_dict(self, state: list[torch.Tensor]) -> None:
        for count, value in zip(self._counts, state, strict=True):
            count.copy_(value)


class Step:
    """Updates a model; what it keeps from one update to the next is in its state.

    rows: windows that go through the model at once; None: those of a batch.
    """

    def __init__(
        self, model: GPTLanguageModel, config: TrainConfig, device: torch.device, processes: Processes = ALONE
    ) -> None:
        """`model` is put on `device`, or divided among `processes`."""
        self.model, self.config, self.device, self.processes = model.train(), config, device, processes
        model.act_recomp = config.act_recomp
        if device.type == "cpu":
            keep_memory()
        self.precision = precisions_of(device, config.precision)[0]
        self.rows: int | None = None
        self._called = parallelize(model, config.strategy, processes, device)
        self._compiled: Callable | None = None
        self._graph = self._new_graph()
        self.expert_use = ExpertUse(model)
        self._make_optimizers()

    def __call__(self, batches: Sequence[Batch], learning_rate: float) -> Update:
        """Update the weights once by several batches (x, y) together, each (B, T).

        UserError where there is not enough memory for one window. Diverged where, on a CPU, the loss or the gradient is
        no longer a number; weights stay as they are. On a GPU, `Update.check` raises it later.
        """
        if self.config.compile and self._compiled is None:  # not before, for what is only rehearsed
            self._compiled = compiled(self._called)
            self._graph = self._new_graph()
        loss, n_targets = self._backward(batches)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        update = Update(loss, n_targets, whole(nn.utils.get_total_norm(gradients)))
        if self.device.type == "cpu":  # a GPU would have to be waited for
            update.check()
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.grad_clip, update.grad_norm)
        set_learning_rate(self.optimizers, learning_rate)
        for optimizer in self.optimizers:
            with autocast(self.device, self.precision):
                optimizer.step()
            optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        self.processes.sum_in_place([mixture.load for mixture in self.model.mixtures])
        self.expert_use.add()
        self.model.rebalance()
        return update

    def keep_frozen(self) -> None:
        """Keep frozen matrices as products need them, now that their precision is decided."""
        if self.precision == "bfloat16" and not is_divided(self.model.head.weight):  # divided, they are small anyway
            keep_frozen(self.model, torch.bfloat16)
            self._graph = self._new_graph()

    def use_precision(self, precision: str) -> None:
        """Compute products in float32 or bfloat16 from the next update on."""
        self.precision = precision
        self._graph = self._new_graph()

    def rehearse(self, batch: Batch) -> None:
        """Do the work of an update but for the update itself; only random numbers go on by it."""
        self._backward([batch])
        self._drop()
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)  # the work is done when this returns

    def begin_anew(self, weights: dict[str, torch.Tensor]) -> None:
        """Go on from other weights, with optimizers that remember nothing."""
        self._drop()
        load_model_state(self.model, weights)
        self._make_optimizers()

    def _make_optimizers(self) -> None:
        """Those of the parameters that are trained, and the average of these."""
        self.optimizers = make_optimizers(self.model, self.config)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.average = Average(trained, self.config.ema) if self.config.ema else None

    def averaged(self) -> contextlib.AbstractContextManager:
        """While entered, the model has its averaged weights, if they are averaged."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def _new_graph(self) -> CudaGraphPass | None:
        """What makes the passes of whole batches on a GPU, unless they are of a kind that cannot be recorded."""
        waits = self.model.mixtures or self.config.act_recomp or self.processes.size > 1
        return CudaGraphPass(self._pass, self.model.parameters()) if self.device.type == "cuda" and not waits else None

    def _backward(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, int]:
        """Leave the gradient of the mean loss of all targets in the parameters; the sum of the losses, and how many.

        Where the memory of one process does not suffice, batches are halved until it does, from now on; UserError where
        it does not for one window.
        """
        while True:
            try:
                return self._accumulate(batches)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.processes.size > 1:  # the others would wait for ever
                    raise
            # Not within `except`, where the error holds on to the activations.
            self._drop()
            sizes = [len(x) for x, _ in batches]
            at_once = min(self.rows or max(sizes), max(sizes))
            if at_once == 1:
                n = self.config.window or self.model.config.block_size
                ways_out = f"configure a smaller --block_size or --n_embd with {step('llm_model')}"
                ways_out = f"give --window {max(1, n // 2)}" if self.config.window else ways_out
                ways_out = ways_out if self.config.act_recomp else f"give --act_recomp, or {ways_out}"
                raise UserError(f"not enough memory for one window of {n} tokens; {ways_out}")
            self.rows = at_once // 2
            parts = sum(-(-size // self.rows) for size in sizes)
            say(
                f"note: out of memory with {at_once} windows at once; going on with {self.rows}, and the same step in "
                f"{parts} parts"
            )
            if self.device.type != "cpu":
                torch.accelerator.empty_cache()

    def _accumulate(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, int]:
        """See `_backward`."""
        passes: list[Batch] = []
        for batch in self.processes.part(batches):
            passes += zip(*(ids.split(self.rows or len(ids)) for ids in batch), strict=True)
        # Targets are counted before they go to a GPU, which would have to be waited for.
        counts = [0 if y.is_meta else int((y != NOT_TRAINED_ON).sum()) for _, y in passes]
        n_targets = int(self.processes.sum(sum(counts))[0])
        total = torch.zeros((), device=self.device)
        for place, ((x, y), count) in enumerate(zip(passes, counts, strict=True), start=1):
            send_gradients(self._called, now=place == len(passes))
            if not count:  # the batch of another process, or one of which nothing is trained on
                self._backward_zero(x)
                continue
            weight = count / n_targets * self.processes.size  # the mean over processes becomes a sum
            weight = torch.full((), weight, device=self.device)
            work = self._graph if self._graph is not None and self._is_whole(x) else self._pass
            total += work(self._there(x), self._there(y), weight) * count
        self.processes.sum_in_place([total])
        return total, n_targets

    def _pass(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Add the gradients of the mean loss of a batch, times `weight`; return the loss."""
        # A batch that is smaller, at the end of an epoch, is not compiled for.
        call = self._compiled if self._compiled is not None and self._is_whole(x) else self._called
        is_divided = self.processes.size > 1 and self.config.strategy == "fsdp"  # which puts weights in place itself
        casts = self.precision == "bfloat16" and self.device.type == "cpu" and not is_divided and call is self._called
        with in_bfloat16(self.model) if casts else contextlib.nullcontext():
            with autocast(self.device, self.precision):
                _, loss = call(x, y, return_logits=False)
            ((loss + self.model.balance_loss()) * weight).backward()
        return loss.detach()

    def _there(self, ids: torch.Tensor) -> torch.Tensor:
        """The ids on the device. From pinned memory a GPU takes them by itself, while earlier steps are under way."""
        if self.device.type == "cuda":
            return ids.pin_memory().to(self.device, non_blocking=True)
        return ids.to(self.device)

    def _is_whole(self, x: torch.Tensor) -> bool:
        """Whether as many windows as can be go through the model at once."""
        return len(x) == min(self.rows or self.config.batch_size, self.config.batch_size)

    def _backward_zero(self, x: torch.Tensor) -> None:
        """Take part in a pass of the other processes, without a target."""
        x = torch.zeros_like(x, device=self.device)
        self.model.eval()  # experts do not count then, and nothing random is drawn
        with autocast(self.device, self.precision):
            _, loss = self._called(x, x)
        (0 * loss).backward()
        self.model.train()

    def _drop(self) -> None:
        """Forget what `_backward` has left in the model."""
        self.model.zero_grad(set_to_none=True)
        for mixture in self.model.mixtures:
            mixture.forget()

    def state_dict(self) -> dict[str, object]:
        return {
            "model": gathered(trained_state(self.model), self.processes),
            "optimizers": gathered([optimizer.state_dict() for optimizer in self.optimizers], self.processes),
            "loads": self.expert_use.state_dict(),
            "average": self.average and gathered(self.average.state_dict(), self.processes),
            "precision": self.precision,
            "rows": self.rows,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        load_model_state(self.model, state["model"])
        self._make_optimizers()
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        self.expert_use.load_state_dict(state["loads"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        self.rows = state["rows"] if self.processes.size == 1 else None
        if self.config.precision == "auto":
            self.use_precision(precisions_of(self.device, state["precision"])[0])


def get_random_state() -> dict[str, torch.Tensor]:
    """The state of each device that there is."""
    return {name: device.get_rng_state() for name, device in _generators()}


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Go on with what `get_random_state` has returned, perhaps on a machine with other devices."""
    for name, device in _generators():
        if name == "cpu" or name in state:  # every checkpoint has that one
            device.set_rng_state(state[name])


def _generators() -> Iterator[tuple[str, Any]]:
    """Name and module of each device that there is."""
    yield "cpu", torch
    if torch.cuda.is_available():
        yield "cuda", torch.cuda
    if torch.backends.mps.is_available():
        yield "mps", torch.mps
