"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from custom_llm.training.optim.base import Optimizer, own


class AdamW(Optimizer):
    """Moves each weight by its mean gradient over the root of its mean square, which is about `lr` a step.

    The means are exponential and begin with zeros, which is corrected for. Computed by torch's own kernel, so that
    weights are those of `torch.optim.AdamW(fused=True)` to the bit.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        """Args:
        betas: how much of the means of gradients and of their squares stays in a step.
        """
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        step = torch.full((), float(self.steps), device=parameters[0].device)  # there, as the kernel wants it
        torch._fused_adamw_(
            [own(parameter) for parameter in parameters],
            [own(parameter.grad) for parameter in parameters],
            self.kept("mean", parameters), self.kept("mean_square", parameters), [], [step] * len(parameters),
            lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False,
        )  # fmt: skip
