"""Muon with fsdp, where every process has some rows of each matrix: each orthogonalises whole ones of a share of them.

Rows travel to the process that has the matrix in its share, and come back as rows of the orthogonal one. So each
process sends and receives twice what it holds, and does its share of the work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

Orthogonalize = Callable[[list[torch.Tensor]], list[torch.Tensor]]


def orthogonalize_parts(
    parts: list[torch.Tensor], wholes: list[torch.Tensor], orthogonalize: Orthogonalize
) -> list[torch.Tensor]:
    """This process's parts of orthogonalised matrices. All processes call it together.

    Args:
        parts: this process's: of a matrix some rows, of a stack of them, (n, rows, columns), some whole matrices.
        wholes: the DTensors of their shapes, all with the same rows and columns, divided like them.
        orthogonalize: takes and gives matrices and stacks.
    """
    results = list(parts)
    rows = [i for i, whole in enumerate(wholes) if whole.dim() == 2]
    stacks = [i for i, part in enumerate(parts) if part.dim() == 3 and len(part)]
    if stacks:
        for i, result in zip(stacks, orthogonalize([parts[i] for i in stacks]), strict=True):
            results[i] = result
    if rows:
        group = wholes[0].device_mesh.get_group()
        n_rows = wholes[0].shape[-2]
        for i, result in zip(rows, _by_rows([parts[i] for i in rows], n_rows, orthogonalize, group), strict=True):
            results[i] = result
    return results


def _by_rows(
    parts: list[torch.Tensor], n_rows: int, orthogonalize: Orthogonalize, group: dist.ProcessGroup
) -> list[torch.Tensor]:
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
        (whole,) = orthogonalize([whole])
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
