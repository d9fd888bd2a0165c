"""Tensors under other names and in other layouts: a table of rows "their name ← ours", applied either way.

In a row's names, {i} is a layer, {e} an expert, {part} each matrix of a feed-forward layer, and a final * both "weight"
and "bias", whichever there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch

from custom_llm.export.graph.check import expected_shapes
from custom_llm.export.graph.graph import Attention, Structure, Tensors, join


@dataclass(frozen=True)
class TensorRow:
    """One tensor of theirs, made of one or more of ours, and the other way round."""

    ours: tuple[str, ...]  # joined along `dim`
    layout: Callable[[torch.Tensor, Attention], torch.Tensor] | None = None  # the same values in another order or shape
    scale: Callable[[Structure, Attention], list[float]] | None = None  # what each of our rows is multiplied by
    dim: int = 0
    shift: float = 0.0  # what is added to ours


Table = Mapping[str, "str | TensorRow"]


def rename(tensors: Tensors, s: Structure, table: Table) -> Tensors:
    """Our tensors under their names. Every tensor must have a row; rows without tensors are left out."""
    result: Tensors = {}
    used: set[str] = set()
    for theirs, row, attn in _rows(s, table):
        if not all(name in tensors for name in row.ours):
            continue
        used.update(row.ours)
        x = join([tensors[name] for name in row.ours], row.dim)
        x = _scaled(x, row.scale(s, attn)) if row.scale else x
        x = x + row.shift if row.shift else x
        x = row.layout(x, attn) if row.layout else x
        of_each = {theirs.replace("{e}", str(e)): part for e, part in enumerate(x)} if "{e}" in theirs else {theirs: x}
        result |= {name: part.contiguous() for name, part in of_each.items()}
    missing = sorted(set(tensors) - used)
    assert not missing, f"no name for {missing}"
    return result


def restore(tensors: Tensors, s: Structure, table: Table) -> Tensors:
    """Their tensors under our names: the inverse of `rename`. Raises ValueError for others than the structure has."""
    result: Tensors = {}
    left, shapes = dict(tensors), expected_shapes(s)

    def take(name: str) -> torch.Tensor:
        if name not in left:
            raise ValueError(f"{name} is missing")
        return left.pop(name)

    for theirs, row, attn in _rows(s, table):
        if not all(name in shapes for name in row.ours):
            continue
        shape, sizes = list(shapes[row.ours[0]]), [shapes[name][row.dim] for name in row.ours]
        shape[row.dim] = sum(sizes)
        if "{e}" in theirs:
            found = torch.stack([take(theirs.replace("{e}", str(e))) for e in range(shape[0])])
        else:
            found = take(theirs)
        places = row.layout(torch.arange(found.numel()).view(shape), attn) if row.layout else None
        expected = tuple(shape if places is None else places.shape)
        if found.shape != expected:
            raise ValueError(f"{theirs} is {tuple(found.shape)} where {expected} is expected")
        if places is not None:
            found = torch.empty_like(found).flatten().index_copy(0, places.flatten(), found.flatten()).view(shape)
        found = found - row.shift if row.shift else found
        x = _scaled(found, [1 / factor for factor in row.scale(s, attn)]) if row.scale else found
        result.update(zip(row.ours, (part.contiguous() for part in x.split(sizes, row.dim)), strict=True))
    if odd := sorted(left) + sorted(shapes.keys() - result.keys()):
        raise ValueError(f"{odd[0]} is {'unexpected' if left else 'missing'}")
    return result


def _scaled(x: torch.Tensor, factors: list[float]) -> torch.Tensor:
    """Each row of a matrix, or each value of a vector, times its factor."""
    return x * torch.tensor(factors).view(-1, *[1] * (x.dim() - 1))


def _rows(s: Structure, table: Table):
    """(their name, row, attention of the layer) for every row, layer, weight and bias."""
    for theirs, value in table.items():
        row = TensorRow((value,)) if isinstance(value, str) else value
        parts = ("gate", "up", "down") if "{part}" in theirs else [""]
        layers = range(len(s.layers)) if "{i}" in theirs else [None]
        kinds = ("weight", "bias") if theirs.endswith("*") else [""]
        for part, i, kind in product(parts, layers, kinds):
            texts = (text.replace("{part}", part).replace("{i}", str(i)) for text in (theirs, *row.ours))
            name, *ours = (text.removesuffix("*") + kind for text in texts)
            yield name, replace(row, ours=tuple(ours)), None if i is None else s.layers[i].attn
