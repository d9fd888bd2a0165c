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
    each_ffn,
    each_layer,
    head_parts,
    widen,
)

PADDED_WIDTH = 32  # of what is added to fill a shape: a block of the common quantized types


def some_shared_expert(graph: Graph) -> Graph:
    """A shared expert of zeros where there is none, as wide as the others."""

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if isinstance(ffn, FeedForward) or ffn.shared_width:
            return ffn, {}
        parts = ("gate", "up", "down") if ffn.gated else ("up", "down")
        shared = {
            f"{prefix}shared.{name}.weight": torch.zeros_like(graph.tensors[f"{prefix}experts.{name}.weight"][0])
            for name in parts
        }
        return replace(ffn, shared_width=ffn.width), shared

    return each_ffn(graph, rewrite)


def some_selection_bias(graph: Graph) -> Graph:
    """A bias of 0 on the choice of experts where there is none."""

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if isinstance(ffn, FeedForward) or ffn.has_selection_bias:
            return ffn, {}
        router = graph.tensors[f"{prefix}router.weight"]
        return replace(ffn, has_selection_bias=True), {f"{prefix}selection_bias": router.new_zeros(len(router))}

    return each_ffn(graph, rewrite)


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
    result = each_ffn(_fill_heads(_constant_channel(graph)), lambda *layer: _as_experts(*layer, constant=s.width))
    return result.without(*result.map(r"blocks\.\d+\.ffn\.(shared\..*|(gate|up|down)\..*)", lambda x: x))


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


def _fill_heads(graph: Graph) -> Graph:
    """Heads that together are as wide as the model, filled with zeros that do not rotate."""

    def rewrite(prefix: str, layer: Layer) -> tuple[Layer, Tensors]:
        a = layer.attn
        width = graph.s.width // a.n_head
        more, stretch = width - a.head_dim, (width / a.head_dim) ** 0.5  # scores are divided by the root of the width

        def fill(name: str, x: torch.Tensor) -> torch.Tensor:
            return widen(x * stretch if name == "query" else x, more, 1 - x.dim())

        tensors = head_parts(graph, prefix, a.head_dim, fill)
        proj = graph.tensors[f"{prefix}attn.proj.weight"].unflatten(1, (-1, a.head_dim))
        tensors[f"{prefix}attn.proj.weight"] = widen(proj, more).flatten(1)
        return replace(layer, attn=replace(a, head_dim=width, rope_dim=a.head_dim)), tensors

    return each_layer(graph, rewrite)


def _as_experts(graph: Graph, prefix: str, ffn: Ffn, constant: int) -> tuple[Ffn, Tensors]:
    """A feed-forward layer as gated experts; value number `constant` of what it reads is 1."""

    def part(name: str) -> torch.Tensor | None:
        """(n, out, in): a matrix of all experts, its bias as the column of the constant, the shared one in each."""
        if isinstance(ffn, Experts):
            x = graph.tensors.get(f"{prefix}experts.{name}.weight")
            shared = graph.tensors.get(f"{prefix}shared.{name}.weight")
            if x is None or shared is None:
                return x
            return join([x, shared.expand(len(x), -1, -1)], -1 if name == "down" else -2)
        x, bias = (graph.tensors.get(f"{prefix}{name}.{kind}") for kind in ("weight", "bias"))
        if x is not None and bias is not None and name != "down":
            x = x.clone()
            x[:, constant] += bias
        return None if x is None else x[None]

    up, down, gate = part("up"), part("down"), part("gate")
    if gate is None:  # an `up` that is 1, as with `gated_silu`
        scale = RELU_SCALE if ffn.activation == "relu" else 1.0
        gate, up = up * scale, torch.zeros_like(up)
        up[:, :, constant] = 1 / scale
    gate, up, down = (widen(x, PADDED_WIDTH, -2) for x in (gate, up, down.mT))
    bias = graph.tensors.get(f"{prefix}down.bias")
    if bias is not None:  # of one hidden value more, which is always 1
        gate[:, -PADDED_WIDTH, constant] = 1.0
        up[:, -PADDED_WIDTH, constant] = 1 / F.silu(torch.tensor(1.0))
        down[:, -PADDED_WIDTH] = bias
    tensors = {f"{prefix}experts.{name}.weight": x for name, x in (("gate", gate), ("up", up), ("down", down.mT))}
    width = gate.shape[1]
    if isinstance(ffn, Experts):
        return replace(ffn, width=width, activation="silu", gated=True, shared_width=0), tensors
    tensors[f"{prefix}router.weight"] = gate.new_zeros(1, graph.s.width)
    return Experts(1, 1, width, "silu", True, "softmax", 0, False), tensors
