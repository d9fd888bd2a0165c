"""Muon: momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from custom_llm.training.optim.adamw import Optimizer, own

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
        """`momentum` is reached after MOMENTUM_STEPS steps."""
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        momentum = momentum_at(self.steps - 1, group["momentum"])
        by_shape: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
        for matrix in parameters:
            by_shape[matrix.shape[-2:]].append(matrix)
        for matrices in by_shape.values():
            parts = [own(matrix) for matrix in matrices]
            gradients = [own(matrix.grad) for matrix in matrices]
            momenta = self.kept("momentum", matrices)
            torch._foreach_lerp_(momenta, gradients, 1 - momentum)
            directions = torch._foreach_lerp(gradients, momenta, momentum)
            if parts[0] is matrices[0]:
                updates = orthogonalize_all(directions)
            else:
                updates = orthogonalize_parts(directions, matrices)
            torch._foreach_mul_(parts, 1 - group["lr"] * group["weight_decay"])
            scale = (max(matrices[0].shape[-2:]) / min(matrices[0].shape[-2:])) ** 0.5
            torch._foreach_add_(parts, updates, alpha=-group["lr"] * scale)


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

    In bfloat16 where autocast is on, as its authors do. (n, rows, columns) → (n, rows, columns)
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


def orthogonalize_parts(parts: list[torch.Tensor], wholes: list[torch.Tensor]) -> list[torch.Tensor]:
    """This process's parts of orthogonalised matrices, with fsdp. All processes call it together.

    Each process orthogonalises whole matrices, a share of them: rows travel to the process that has the matrix in its
    share, and come back as rows of the orthogonal one. So each sends and receives twice what it holds.

    Args:
        parts: this process's: of a matrix some rows, of a stack of them, (n, rows, columns), some whole matrices.
        wholes: the DTensors of their shapes, all with the same rows and columns, divided like them.
    """
    results = list(parts)
    rows = [i for i, whole in enumerate(wholes) if whole.dim() == 2]
    stacks = [i for i, part in enumerate(parts) if part.dim() == 3 and len(part)]
    if stacks:
        for i, result in zip(stacks, orthogonalize_all([parts[i] for i in stacks]), strict=True):
            results[i] = result
    if rows:
        group = wholes[0].device_mesh.get_group()
        n_rows = wholes[0].shape[-2]
        for i, result in zip(rows, _orthogonalize_rows([parts[i] for i in rows], n_rows, group), strict=True):
            results[i] = result
    return results


def _orthogonalize_rows(parts: list[torch.Tensor], n_rows: int, group: dist.ProcessGroup) -> list[torch.Tensor]:
    """The same for matrices of `n_rows` rows, of which this process has the `torch.chunk` of its rank."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    height, columns = parts[0].shape
    shares = [range(start, len(parts), size) for start in range(size)]  # the matrices that each orthogonalises
    most = -(-n_rows // size)
    heights = [min(most, max(0, n_rows - start * most)) for start in range(size)]  # the rows that each has
    away = [len(share) * height * columns for share in shares]  # numbers to send to each
    here = [len(shares[rank]) * h * columns for h in heights]  # and to get from it

    received = _exchange([parts[i] for share in shares for i in share], away, here, group)
    whole = torch.cat([rows.view(-1, h, columns) for rows, h in zip(received, heights, strict=True) if h], dim=1)
    if len(whole):
        whole = orthogonalize(whole)
    returned = _exchange(whole.split(heights, dim=1), here, away, group)
    results = {}
    for share, rows in zip(shares, returned, strict=True):
        results.update(zip(share, rows.view(len(share), height, columns), strict=True))
    return [results[i] for i in range(len(parts))]


def _exchange(
    tensors: list[torch.Tensor], out_sizes: list[int], in_sizes: list[int], group: dist.ProcessGroup
) -> tuple[torch.Tensor, ...]:
    """Send so many of the tensors' numbers to each process, and give what they have sent."""
    numbers = torch.cat([tensor.flatten() for tensor in tensors])
    received = numbers.new_empty(sum(in_sizes))
    dist.all_to_all_single(received, numbers, in_sizes, out_sizes, group)
    return received.split(in_sizes)
