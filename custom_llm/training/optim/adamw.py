"""AdamW, and what all optimizers here have in common.

They are no torch.optim.Optimizer: making the first one imports torch's compiler, 1.3 s at the start of each training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.adamw import adamw

from custom_llm.training.distributed.parallel import divided_like


class Optimizer:
    """Updates parameters by their gradients."""

    def __init__(self, groups: Iterable[dict[str, Any]], **settings: Any) -> None:
        """Each group is of parameters that are treated alike, `params`, with settings of its own."""
        self.param_groups = [{**settings, **group, "params": list(group["params"])} for group in groups]
        self._parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        # What is kept of each from one step to the next, tensors of its shape. (Keys are compared by identity.)
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = defaultdict(dict)
        self.steps = 0  # that were made

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
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What is kept, in the order of the parameters. Settings are those of the training, and not in it."""
        return {"steps": self.steps, "state": [dict(self.state[p]) for p in self._parameters]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a state of whole tensors, whether the parameters are divided or not."""
        self.steps = state["steps"]
        for parameter, kept in zip(self._parameters, state["state"], strict=True):
            for name, value in kept.items():
                self.state[parameter][name] = torch.zeros_like(parameter).copy_(divided_like(parameter, value))


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that is divided among several; else the tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), by torch's fused kernel.

    Moves each weight by its mean gradient over the root of its mean square, which is about `lr` a step. The means are
    exponential and begin with zeros, which is corrected for; `betas` say how much of each stays in a step.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        parts = [own(parameter) for parameter in parameters]
        # One for each, on the device, as the kernel wants them; `adamw` counts this step itself.
        steps = torch.full((len(parts),), self.steps - 1.0, device=parts[0].device).unbind()
        adamw(
            parts, [own(parameter.grad) for parameter in parameters], self.kept("mean", parameters),
            self.kept("mean_square", parameters), [], list(steps), fused=True, amsgrad=False, beta1=beta1, beta2=beta2,
            lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip
