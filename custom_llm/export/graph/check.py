"""Whether a structure that was read from files is possible, and the shapes of the tensors that belong to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from custom_llm.config.block import PLAIN
from custom_llm.export.graph.graph import Attention, Experts, FeedForward, Structure

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]
TYPES = {"int": int, "bool": bool, "str": str, "float": float}
CHOICES = {
    "norm_place": ("before", "after", "both"), "qk_norm_over": ("head", "all"),
    "rope_scaling": ("linear", "llama3", "yarn"), "norm": ("layer", "rms"), "scoring": ("softmax", "sigmoid"),
    "activation": PLAIN,
}  # fmt: skip
MAY_BE_ZERO = ("q_latent", "rope_dim", "shared_width", "dropout")
MOST = 1 << 24  # of any number; the largest that makes sense is a vocabulary


def check_structure(s: Structure) -> None:
    """Raise ValueError for values of a wrong type or outside all bounds."""
    _check_values(s)
    if s.n_positions not in (None, s.block_size):
        raise ValueError(f"block_size is {s.block_size} and n_positions {s.n_positions}")
    for layer in s.layers:
        a, ffn = layer.attn, layer.ffn
        _check_values(a)
        _check_values(ffn)
        if a.n_head % a.n_kv_heads:
            raise ValueError(f"n_head {a.n_head} is not a multiple of n_kv_heads {a.n_kv_heads}")
        if (a.q_latent is None, a.rope_dim is None) != (a.kv_latent is None,) * 2:
            raise ValueError("a part of latent attention only")
        if s.n_positions is None and ((a.rotary_dim or a.head_dim) if a.rope_dim is None else a.rope_dim) % 2:
            raise ValueError("heads of an odd width rotate")
        if a.rotary_dim is not None and a.rotary_dim > a.head_dim:
            raise ValueError(f"rotary_dim {a.rotary_dim} of heads of {a.head_dim}")
        if isinstance(ffn, Experts) and ffn.n_chosen >= max(ffn.n, 2):
            raise ValueError(f"n_chosen {ffn.n_chosen} of n {ffn.n} experts")
    if not s.layers:
        raise ValueError("no layers")


def expected_shapes(s: Structure) -> dict[str, Shape]:
    """The shape of every tensor of a graph."""
    width = s.width
    shapes: dict[str, Shape] = {"token_embedding.weight": (s.vocab_size, width)}
    if s.n_positions is not None:
        shapes["position_embedding.weight"] = (s.n_positions, width)
    if not s.tied:
        shapes["head.weight"] = (s.vocab_size, width)
    if s.head_bias:
        shapes["head.bias"] = (s.vocab_size,)
    norms = ["ln_f"]
    for i, layer in enumerate(s.layers):
        prefix = f"blocks.{i}."
        norms += [f"{prefix}ln1", f"{prefix}ln2"] if s.norm_place != "after" else []
        norms += [f"{prefix}ln1_after", f"{prefix}ln2_after"] if s.norm_place != "before" else []
        shapes.update((f"{prefix}attn.{name}", shape) for name, shape in _attention_shapes(layer.attn, width))
        shapes.update((f"{prefix}ffn.{name}", shape) for name, shape in _ffn_shapes(layer.ffn, width))
    for norm in norms:
        shapes |= dict(_linear(norm, (width,), s.norm_bias))
    return shapes


def _linear(name: str, shape: Shape, bias: bool) -> Shapes:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def _attention_shapes(a: Attention, width: int) -> Shapes:
    heads = a.n_head * a.head_dim
    yield from _linear("proj", (width, heads), a.out_bias)
    if not a.is_latent:
        for name, n in (("query", a.n_head), ("key", a.n_kv_heads), ("value", a.n_kv_heads)):
            yield from _linear(name, (n * a.head_dim, width), a.bias)
            if a.qk_norm and name != "value":
                yield f"{name}_norm.weight", (n * a.head_dim if a.qk_norm_over == "all" else a.head_dim,)
        return
    queries = a.n_head * (a.head_dim + a.rope_dim)
    if a.q_latent:
        yield from _linear("query_down", (a.q_latent, width), a.bias)
        yield "query_norm.weight", (a.q_latent,)
    yield "query_up.weight" if a.q_latent else "query.weight", (queries, a.q_latent or width)
    yield from _linear("kv_down", (a.kv_latent + a.rope_dim, width), a.bias)
    yield "kv_norm.weight", (a.kv_latent,)
    yield "key_up.weight", (heads, a.kv_latent)
    yield "value_up.weight", (heads, a.kv_latent)


def _ffn_shapes(ffn: FeedForward | Experts, width: int) -> Shapes:
    """Matrices (hidden, width), (hidden, width) and (width, hidden); those of all experts are one tensor."""
    if isinstance(ffn, Experts):
        yield "router.weight", (ffn.n, width)
        if ffn.has_selection_bias:
            yield "selection_bias", (ffn.n,)
    for name in ("gate", "up", "down") if ffn.gated else ("up", "down"):
        rows, columns = (width, ffn.width) if name == "down" else (ffn.width, width)
        if isinstance(ffn, FeedForward):
            yield from _linear(name, (rows, columns), ffn.bias)
            continue
        yield f"experts.{name}.weight", (ffn.n, rows, columns)
        if ffn.shared_width:
            shared = ffn.shared_width
            yield f"shared.{name}.weight", (width, shared) if name == "down" else (shared, width)


def _check_values(item: Any) -> None:
    """Of one dataclass, by the types of its fields."""
    for field in fields(item):
        kind, _, none = str(field.type).partition(" | ")
        value = getattr(item, field.name)
        if kind not in TYPES or (none and value is None):
            continue
        if type(value) is not TYPES[kind]:
            raise ValueError(f"{field.name} is {value!r}")
        if kind in ("int", "float"):
            least_is_zero = field.name in MAY_BE_ZERO and value == 0
            if not (least_is_zero or 0 < value <= MOST) or not math.isfinite(value):
                raise ValueError(f"{field.name} is {value!r}")
        if value not in CHOICES.get(field.name, (value,)):
            raise ValueError(f"{field.name} is {value!r}")
