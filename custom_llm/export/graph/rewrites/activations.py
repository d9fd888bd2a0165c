"""Activations by means of others."""

from __future__ import annotations

from dataclasses import replace

import torch

from custom_llm.export.graph.graph import Experts, FeedForward, Graph, Tensors, join
from custom_llm.export.graph.rewrites.parts import RELU_SCALE, Ffn, each_ffn, ffn_parts

# SiLU(s·x)·x/s → ReLU(x)²; its error shrinks with s², and what undoes it is shared by two matrices.
SQUARE_SCALE, SQUARE_SHARE = 1024.0, 32.0
LEAK = 0.01  # PyTorch's slope of LeakyReLU below 0


def plain_gelu(graph: Graph) -> Graph:
    """ReLU without a gate as GELU."""
    return _relu_as("gelu", graph)


def plain_silu(graph: Graph) -> Graph:
    """ReLU without a gate as SiLU."""
    return _relu_as("silu", graph)


def gated_silu(graph: Graph) -> Graph:
    """Everything that SiLU with a gate, silu(gate)·up, can be.

    ReLU² is relu(x)·x; a gate of ReLU is a scaled one of SiLU. What has no gate gets an `up` of 1, a bias.
    """
    return each_ffn(squares_as_gates(each_ffn(graph, _leaky_as_relu)), _plain_as_gate)


def squares_as_gates(graph: Graph) -> Graph:
    """ReLU² and gates of ReLU as gates of SiLU; what has no gate is left alone."""

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if (ffn.activation, ffn.gated) not in (("relu2", False), ("relu", True)):
            return ffn, {}
        up, down = ffn_parts(graph, prefix, "up"), ffn_parts(graph, prefix, "down")
        gate = ffn_parts(graph, prefix, "gate") if ffn.gated else _as_gate(up)
        tensors = _scaled(gate, SQUARE_SCALE) | _scaled(up, 1 / SQUARE_SHARE)
        return replace(ffn, activation="silu", gated=True), tensors | _weights(down, SQUARE_SHARE / SQUARE_SCALE)

    return each_ffn(graph, rewrite)


def squares_as_relu_gates(graph: Graph) -> Graph:
    """ReLU² as a gate of ReLU: relu(x)² is relu(x)·x."""

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if (ffn.activation, ffn.gated) != ("relu2", False):
            return ffn, {}
        return replace(ffn, activation="relu", gated=True), _scaled(_as_gate(ffn_parts(graph, prefix, "up")), 1)

    return each_ffn(graph, rewrite)


def _as_gate(up: Tensors) -> Tensors:
    return {name.replace("up.", "gate."): x for name, x in up.items()}


def _scaled(tensors: Tensors, scale: float) -> Tensors:
    return {name: x * scale for name, x in tensors.items()}


def _weights(tensors: Tensors, scale: float) -> Tensors:
    """Scaled matrices; biases are added after, so they stay."""
    return _scaled({name: x for name, x in tensors.items() if name.endswith("weight")}, scale)


def _relu_as(activation: str, graph: Graph) -> Graph:
    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if ffn.activation != "relu" or ffn.gated:
            return ffn, {}
        up, down = ffn_parts(graph, prefix, "up"), ffn_parts(graph, prefix, "down")
        return replace(ffn, activation=activation), _scaled(up, RELU_SCALE) | _weights(down, 1 / RELU_SCALE)

    return each_ffn(each_ffn(graph, _leaky_as_relu), rewrite)


def _plain_as_gate(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
    if isinstance(ffn, Experts) or ffn.gated or ffn.activation not in ("silu", "relu"):
        return ffn, {}
    scale = RELU_SCALE if ffn.activation == "relu" else 1.0
    up, down = graph.tensors[f"{prefix}up.weight"], graph.tensors[f"{prefix}down.weight"]
    biases = {name: graph.tensors.get(f"{prefix}{name}.bias") for name in ("up", "down")}
    gate_bias = up.new_zeros(len(up)) if biases["up"] is None else biases["up"]
    return FeedForward(ffn.width, "silu", gated=True, bias=True), {
        f"{prefix}gate.weight": up * scale,
        f"{prefix}gate.bias": gate_bias * scale,
        f"{prefix}up.weight": torch.zeros_like(up),
        f"{prefix}up.bias": up.new_full((len(up),), 1 / scale),
        f"{prefix}down.bias": down.new_zeros(len(down)) if biases["down"] is None else biases["down"],
    }


def _leaky_as_relu(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
    """LeakyReLU(x) = relu(x) - a·relu(-x), with twice as many hidden values."""
    if ffn.activation != "leaky_relu":
        return ffn, {}
    tensors: Tensors = {}
    for name, x in ffn_parts(graph, prefix, "up").items():
        tensors[name] = join([x, -1 * x], -2 if name.endswith("weight") else -1)
    for name, x in ffn_parts(graph, prefix, "down").items():
        if name.endswith("weight"):
            tensors[name] = join([x, -LEAK * x], -1)
    shared = dict(shared_width=2 * ffn.shared_width) if isinstance(ffn, Experts) else {}
    return replace(ffn, activation="relu", width=2 * ffn.width, **shared), tensors
