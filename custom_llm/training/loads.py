"""How evenly a mixture's experts are used."""

from __future__ import annotations

import torch

from custom_llm.model import GPTLanguageModel


class ExpertLoads:
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
