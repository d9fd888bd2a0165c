"""Experts that change nothing, and layers as experts."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from custom_llm.export.graph.graph import Experts, FeedForward, Graph, Layer, Tensors, join
from custom_llm.export.graph.rewrites.parts import (
    EMBEDDINGS,
    NORM_BIASES,
    NORM_WEIGHTS,
    READERS,
    RELU_SCALE,
    WRITER_BIASES,
    WRITERS,
    Ffn,
    Rewrite,
    each_ffn,
    each_layer,
    widen,
    with_heads,
)

PADDED_WIDTH = 32  # of what is added to fill a shape: a block of the common quantized types


@each_ffn
def some_shared_expert(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
    """A shared expert of zeros where there is none, as wide as the others."""
    if isinstance(ffn, FeedForward) or ffn.shared_width:
        return ffn, x
    routed = {name: y for name, y in x.items() if name.startswith("experts.")}
    shared = {name.replace("experts.", "shared."): torch.zeros_like(y[0]) for name, y in routed.items()}
    return replace(ffn, shared_width=ffn.width), x | shared


@each_ffn
def some_selection_bias(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
    """A bias of 0 on the choice of experts where there is none."""
    if isinstance(ffn, FeedForward) or ffn.has_selection_bias:
        return ffn, x
    return replace(ffn, has_selection_bias=True), x | {"selection_bias": x["router.weight"].new_zeros(ffn.n)}


def all_as_experts(graph: Graph) -> Graph:
    """Gated experts without shared ones everywhere, for a norm with a bias; leaves other graphs alone.

    A dense layer is a single expert, whose weight is 1. A shared expert becomes a part of every routed one, since the
    weights of those chosen sum to 1. Biases become columns of matrices (see `_constant_channel`).
    """
    s = graph.s
    possible = s.norm == "rms" and s.norm_bias and not any(layer.attn.is_latent for layer in s.layers)
    for ffn in (layer.ffn for layer in s.layers):
        possible &= (ffn.activation, ffn.gated) in (("silu", True), ("silu", False), ("relu", False))
        possible &= isinstance(ffn, FeedForward) or ffn.renormalized
    if not possible:
        return graph
    graph = _constant_channel(graph)
    width = graph.s.width
    graph = _fill_heads(width)(graph)
    return each_ffn(lambda ffn, x: _as_experts(ffn, x, width, constant=s.width))(graph)


def _constant_channel(graph: Graph) -> Graph:
    """A stream with further values that are always 0, behind a norm with a bias: there the first of them is 1.

    The norm's mean square is over more values then; its weights and its epsilon make up for it.
    """
    s = graph.s
    unit = math.lcm(PADDED_WIDTH, *(2 * layer.attn.n_head for layer in s.layers))  # heads of an even width rotate
    more = unit - s.width % unit
    shrink = s.width / (s.width + more)
    tensors = graph.map(f"{EMBEDDINGS}|{READERS}|{WRITER_BIASES}", lambda x: widen(x, more))
    tensors |= graph.map(WRITERS, lambda x: widen(x, more, -2))
    tensors |= graph.map(NORM_WEIGHTS, lambda x: widen(x * shrink**0.5, more))
    tensors |= graph.map(NORM_BIASES, lambda x: widen(F.pad(x, (0, 1), value=1.0), more - 1))
    return graph.change(tensors, width=s.width + more, eps=s.eps * shrink)


def _fill_heads(model_width: int) -> Rewrite:
    """Heads that together are as wide as the model, filled with zeros that do not rotate."""

    def rewrite(layer: Layer, x: Tensors) -> tuple[Layer, Tensors]:
        a = layer.attn
        width = model_width // a.n_head
        more, stretch = width - a.head_dim, (width / a.head_dim) ** 0.5  # scores are divided by the root of the width

        def fill(name: str, y: torch.Tensor) -> torch.Tensor:
            return widen(y * stretch if name == "query" else y, more, 1 - y.dim())

        proj = widen(x["attn.proj.weight"].unflatten(1, (-1, a.head_dim)), more).flatten(1)
        x = x | with_heads(x, a.head_dim, fill) | {"attn.proj.weight": proj}
        return replace(layer, attn=replace(a, head_dim=width, rope_dim=a.head_dim)), x

    return each_layer(rewrite)


def _as_experts(ffn: Ffn, x: Tensors, model_width: int, constant: int) -> tuple[Ffn, Tensors]:
    """A feed-forward layer as gated experts; value number `constant` of what it reads is 1."""

    def part(name: str) -> torch.Tensor | None:
        """(n, out, in): a matrix of all experts, its bias as the column of the constant, the shared one in each."""
        if isinstance(ffn, Experts):
            y, shared = (x.get(f"{kind}.{name}.weight") for kind in ("experts", "shared"))
            if y is None or shared is None:
                return y
            return join([y, shared.expand(len(y), -1, -1)], -1 if name == "down" else -2)
        y, bias = x.get(f"{name}.weight"), x.get(f"{name}.bias")
        if y is not None and bias is not None and name != "down":
            y = y.clone()
            y[:, constant] += bias
        return None if y is None else y[None]

    up, down, gate = part("up"), part("down"), part("gate")
    if gate is None:  # an `up` that is 1, as with `gated_silu`
        scale = RELU_SCALE if ffn.activation == "relu" else 1.0
        gate, up = up * scale, torch.zeros_like(up)
        up[:, :, constant] = 1 / scale
    gate, up, down = (widen(y, PADDED_WIDTH, -2) for y in (gate, up, down.mT))
    if "down.bias" in x:  # of one hidden value more, which is always 1
        gate[:, -PADDED_WIDTH, constant] = 1.0
        up[:, -PADDED_WIDTH, constant] = 1 / F.silu(torch.tensor(1.0))
        down[:, -PADDED_WIDTH] = x["down.bias"]
    width = gate.shape[1]
    tensors = {"experts.gate.weight": gate, "experts.up.weight": up, "experts.down.weight": down.mT}
    if isinstance(ffn, Experts):
        kept = {name: x[name] for name in ("router.weight", "selection_bias") if name in x}
        return replace(ffn, width=width, activation="silu", gated=True, shared_width=0), kept | tensors
    tensors["router.weight"] = gate.new_zeros(1, model_width)
    return Experts(1, 1, width, "silu", True, "softmax", 0, False), tensors
