"""Tensors under other names and in other layouts: a table of rows "their name ← ours", applied either way.

In a row's names, {i} is a layer, {e} an expert, and a final * both "weight" and "bias", whichever there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, takewhile

import torch

from custom_llm.export.graph.graph import Attention, Structure, Tensors, join

Layout = Callable[[torch.Tensor, Attention | None], torch.Tensor]


def as_is(x: torch.Tensor, attn: Attention | None) -> torch.Tensor:
    return x


def transposed(x: torch.Tensor, attn: Attention | None) -> torch.Tensor:
    """(out, in) ↔ (in, out); vectors as they are."""
    return x.mT if x.dim() > 1 else x


@dataclass(frozen=True)
class TensorRow:
    """One tensor of theirs, made of one or more of ours, and the other way round.

    Args:
        ours: names of ours, joined along `dim`.
        pack: the layout they want, from ours; unpack: the inverse.
        sizes: of each part along `dim` (default: all alike).
    """

    ours: tuple[str, ...]
    pack: Layout = as_is
    unpack: Layout = as_is
    sizes: Callable[[Attention], list[int]] | None = field(default=None, compare=False)
    dim: int = 0


Table = Mapping[str, "str | TensorRow"]


def rename(tensors: Tensors, s: Structure, table: Table) -> Tensors:
    """Our tensors under their names. Every tensor must have a row; rows without tensors are left out."""
    result: Tensors = {}
    used: set[str] = set()
    for theirs, row, attn in _rows(s, table):
        if not all(name in tensors for name in row.ours):
            continue
        parts = [tensors[name] for name in row.ours]
        result[theirs] = row.pack(join(parts, row.dim), attn).contiguous()
        used.update(row.ours)
    for theirs, ours in _expert_rows(s, table):
        if ours in tensors:
            used.add(ours)
            result |= {theirs.replace("{e}", str(e)): x.contiguous() for e, x in enumerate(tensors[ours])}
    missing = sorted(set(tensors) - used)
    assert not missing, f"no name for {missing}"
    return result


def restore(tensors: Tensors, s: Structure, table: Table) -> Tensors:
    """Their tensors under our names: the inverse of `rename`. Raises KeyError for a tensor that is not in the table."""
    result: Tensors = {}
    used: set[str] = set()
    for theirs, row, attn in _rows(s, table):
        if theirs not in tensors:
            continue
        x = row.unpack(tensors[theirs], attn)
        parts = x.split(row.sizes(attn) if row.sizes else x.shape[row.dim] // len(row.ours), row.dim)
        result.update(zip(row.ours, (part.contiguous() for part in parts), strict=True))
        used.add(theirs)
    for theirs, ours in _expert_rows(s, table):
        names = (theirs.replace("{e}", str(e)) for e in count())
        found = list(takewhile(tensors.__contains__, names))
        if found:
            result[ours] = torch.stack([tensors[name] for name in found])
            used.update(found)
    if unexpected := sorted(set(tensors) - used):
        raise KeyError(unexpected[0])
    return result


def _rows(s: Structure, table: Table):
    """(their name, row, attention of the layer) for every row, layer, weight and bias; not for rows of experts."""
    for theirs, value in table.items():
        if "{e}" in theirs:
            continue
        row = TensorRow((value,)) if isinstance(value, str) else value
        for i in range(len(s.layers)) if "{i}" in theirs else [None]:
            attn = None if i is None else s.layers[i].attn
            for kind in ("weight", "bias") if theirs.endswith("*") else [None]:
                name, *ours = (_fill(text, i, kind) for text in (theirs, *row.ours))
                yield name, replace(row, ours=tuple(ours)), attn


def _expert_rows(s: Structure, table: Table):
    """(their name with {e}, our name of all experts) for every row of single experts and every layer."""
    for theirs, value in table.items():
        if "{e}" in theirs:
            for i in range(len(s.layers)):
                yield _fill(theirs, i, None), _fill(value, i, None)


def _fill(text: str, i: int | None, kind: str | None) -> str:
    text = text if i is None else text.replace("{i}", str(i))
    return text if kind is None else text.removesuffix("*") + kind
