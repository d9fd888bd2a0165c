"""What optimizers have in common.

They are not torch.optim's, whose base class imports torch's compiler when one is made: 1.4 s at the start of each
training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from custom_llm.training.distributed.parallel import divided_like


class Optimizer:
    """Updates parameters by their gradients.

    Attributes:
        param_groups: parameters that are treated alike, `params`, with their settings, such as `lr`.
        state: parameter → what is kept of it from one step to the next, tensors of its shape.
        steps: how many were made.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **settings: Any) -> None:
        """Args:
        settings: of the groups that do not say otherwise.
        """
        self.param_groups = [{**settings, **group, "params": list(group["params"])} for group in groups]
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = defaultdict(dict)  # by identity
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self.update(parameters, group)

    def update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        """Update those of a group that have a gradient, with its settings."""
        raise NotImplementedError

    def kept(self, name: str, parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """What is kept of each parameter under this name, zeros at first; this process's parts."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [own(self.state[parameter][name]) for parameter in parameters]

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self._parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What is kept, in the order of the parameters. Settings are those of the training, and not in it."""
        return {"steps": self.steps, "state": [dict(self.state[p]) for p in self._parameters()]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a state of whole tensors, whether the parameters are divided or not."""
        self.steps = state["steps"]
        for parameter, kept in zip(self._parameters(), state["state"], strict=True):
            for name, value in kept.items():
                self.state[parameter][name] = torch.zeros_like(parameter).copy_(divided_like(parameter, value))

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that is divided among several; else the tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
