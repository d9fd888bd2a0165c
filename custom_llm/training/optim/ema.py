"""A moving average of the weights, which does better than the weights themselves while the learning rate is high."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch

from custom_llm.training.distributed.parallel import divided_like


class Average:
    """The exponential moving average of weights (as in Tarvainen and Valpola 2017, https://arxiv.org/abs/1703.01780).

    Beginning with the first update, it forgets faster, so that it does not hold on to the first weights:
    after n updates an old average counts for min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, weights: Iterable[torch.Tensor], decay: float) -> None:
        self._weights = list(weights)
        self._average = [weight.detach().clone() for weight in self._weights]
        self._decay, self._updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Count in the weights as they are now."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._average, self._weights, 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While entered, the weights are the averaged ones."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, average in zip(self._weights, self._average, strict=True):
            value = weight.clone()
            weight.copy_(average)
            average.copy_(value)

    def state_dict(self) -> dict[str, object]:
        return {"average": self._average, "updates": self._updates}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object]) -> None:
        for mine, given in zip(self._average, state["average"], strict=True):
            mine.copy_(divided_like(mine, given))
        self._updates = state["updates"]
