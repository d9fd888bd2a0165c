"""Muon: momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from custom_llm.training.optim.adamw import Optimizer, own
from custom_llm.training.optim.sharded_muon import orthogonalize_parts

# Coefficients of the quintic iteration, chosen by its authors to bring singular values near 1 in few steps.
A, B, C = 3.4445, -4.7750, 2.0315
STEPS = 5
# Momentum begins low, while gradients still turn fast, and rises; without that, short trainings learn less (docs/
# training.md). https://github.com/KellerJordan/modded-nanogpt
FIRST_MOMENTUM, MOMENTUM_STEPS = 0.85, 300


class Muon(Optimizer):
    """SGD with Nesterov momentum whose update of every matrix is replaced by the nearest orthogonal matrix.

    The update of a square matrix has singular values of about `lr`, which then suits matrices of any width (Bernstein
    2025, https://jeremybernste.in/writing/deriving-muon); longer or wider ones move more, as in Moonlight (Liu et al.
    2025, arXiv:2502.16982, section 2.2).

    For the hidden matrices of a network; embeddings, output layers, norms and biases belong to AdamW. A parameter may
    also be a stack of them, (n, rows, columns), such as the experts of a layer. Matrices of one shape are
    orthogonalised together, in batched products.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ) -> None:
        """Args:
        momentum: which it reaches after MOMENTUM_STEPS steps.
        """
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        momentum = momentum_at(self.steps - 1, group["momentum"])
        by_shape: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
        for matrix in parameters:
            by_shape[matrix.shape[-2:]].append(matrix)
        for matrices in by_shape.values():
            self._update_together(matrices, group["lr"], momentum, group["weight_decay"])

    def _update_together(self, matrices: list[torch.Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        parts = [own(matrix) for matrix in matrices]
        gradients = [own(matrix.grad) for matrix in matrices]
        momenta = self.kept("momentum", matrices)
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, momenta, momentum)
        rows, columns = matrices[0].shape[-2:]
        if parts[0] is matrices[0]:
            updates = orthogonalize_all(directions)
        else:
            updates = orthogonalize_parts(directions, matrices, orthogonalize_all)
        torch._foreach_mul_(parts, 1 - lr * weight_decay)
        torch._foreach_add_(parts, updates, alpha=-lr * (max(rows, columns) / min(rows, columns)) ** 0.5)


def orthogonalize_all(stacks: list[torch.Tensor]) -> list[torch.Tensor]:
    """`orthogonalize` for matrices of one shape, (rows, columns) or (n, rows, columns), in one product."""
    rows, columns = stacks[0].shape[-2:]
    flat = [stack.reshape(-1, rows, columns) for stack in stacks]
    results = orthogonalize(torch.cat(flat)).split([len(stack) for stack in flat])
    return [result.view_as(stack) for result, stack in zip(results, stacks, strict=True)]


def momentum_at(step: int, peak: float) -> float:
    """The momentum of a step, counted from 0.

    >>> [round(momentum_at(step, 0.95), 3) for step in (0, 150, 300, 9000)]
    [0.85, 0.9, 0.95, 0.95]
    """
    first = min(FIRST_MOMENTUM, peak)
    return first + (peak - first) * min(1.0, step / MOMENTUM_STEPS)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """U·Vᵀ of each matrix U·S·Vᵀ, roughly (singular values between about 0.7 and 1.2), by Newton–Schulz iteration.

    In bfloat16 where autocast is on, as its authors do.

    Args:
        matrices: (n, rows, columns)
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT  # the products below are then of the smaller side
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT  # (n, small, small)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return (x if wide else x.mT).type_as(matrices)
