"""Activations by means of others."""

from __future__ import annotations

from dataclasses import replace

import torch

from custom_llm.export.graph.graph import Experts, FeedForward, Graph, Tensors, join
from custom_llm.export.graph.rewrites.parts import RELU_SCALE, Ffn, Rewrite, each_ffn, scaled

# SiLU(s·x)·x/s → ReLU(x)²; its error shrinks with s², and what undoes it is shared by two matrices.
SQUARE_SCALE, SQUARE_SHARE = 1024.0, 32.0
LEAK = 0.01  # PyTorch's slope of LeakyReLU below 0


@each_ffn
def squares_as_gates(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
    """ReLU² and gates of ReLU as gates of SiLU; what has no gate is left alone."""
    if (ffn.activation, ffn.gated) not in (("relu2", False), ("relu", True)):
        return ffn, x
    x = x if ffn.gated else _with_equal_gate(x)
    x = x | scaled(x, "gate", SQUARE_SCALE) | scaled(x, "up", 1 / SQUARE_SHARE)
    return replace(ffn, activation="silu", gated=True), x | scaled(x, "down.weight", SQUARE_SHARE / SQUARE_SCALE)


@each_ffn
def squares_as_relu_gates(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
    """ReLU² as a gate of ReLU: relu(x)² is relu(x)·x."""
    if (ffn.activation, ffn.gated) != ("relu2", False):
        return ffn, x
    return replace(ffn, activation="relu", gated=True), _with_equal_gate(x)


def _with_equal_gate(x: Tensors) -> Tensors:
    return x | {name.replace("up.", "gate."): y for name, y in scaled(x, "up", 1).items()}


@each_ffn
def _leaky_as_relu(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
    """LeakyReLU(x) = relu(x) - a·relu(-x), with twice as many hidden values."""
    if ffn.activation != "leaky_relu":
        return ffn, x
    for name, negative in scaled(x, "up", -1).items():
        x = x | {name: join([x[name], negative], -2 if name.endswith("weight") else -1)}
    for name, negative in scaled(x, "down.weight", -LEAK).items():
        x = x | {name: join([x[name], negative], -1)}
    shared = dict(shared_width=2 * ffn.shared_width) if isinstance(ffn, Experts) else {}
    return replace(ffn, activation="relu", width=2 * ffn.width, **shared), x


def _relu_as(activation: str) -> Rewrite:
    @each_ffn
    def rewrite(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
        if ffn.activation != "relu" or ffn.gated:
            return ffn, x
        x = x | scaled(x, "up", RELU_SCALE) | scaled(x, "down.weight", 1 / RELU_SCALE)  # biases are added after
        return replace(ffn, activation=activation), x

    return lambda graph: rewrite(_leaky_as_relu(graph))


# ReLU without a gate as GELU, and as SiLU.
plain_gelu, plain_silu = _relu_as("gelu"), _relu_as("silu")


def gated_silu(graph: Graph) -> Graph:
    """Everything that SiLU with a gate, silu(gate)·up, can be.

    ReLU² is relu(x)·x; a gate of ReLU is a scaled one of SiLU. What has no gate gets an `up` of 1, a bias.
    """
    return _plain_as_gate(squares_as_gates(_leaky_as_relu(graph)))


@each_ffn
def _plain_as_gate(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
    if isinstance(ffn, Experts) or ffn.gated or ffn.activation not in ("silu", "relu"):
        return ffn, x
    scale = RELU_SCALE if ffn.activation == "relu" else 1.0
    up, down = x["up.weight"], x["down.weight"]
    return FeedForward(ffn.width, "silu", gated=True, bias=True), {
        "gate.weight": up * scale,
        "gate.bias": x.get("up.bias", up.new_zeros(len(up))) * scale,
        "up.weight": torch.zeros_like(up),
        "up.bias": up.new_full((len(up),), 1 / scale),
        "down.weight": down,
        "down.bias": x.get("down.bias", down.new_zeros(len(down))),
    }
