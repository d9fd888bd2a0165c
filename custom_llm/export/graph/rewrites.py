"""Exact rewrites: a graph becomes another one that computes the same function with other means.

Each takes a graph and returns a graph, the same one where there is nothing to do; none looks at what it is for. "Exact"
means: equal in real arithmetic (`centre`, `mirror`, paddings, constants), or in the limit of a scale so large that the
rest is below float32's rounding noise (ReLU from GELU or SiLU).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from custom_llm.export.graph.graph import Experts, FeedForward, Graph, Layer, Tensors, join

Rewrite = Callable[[Graph], Graph]

# What writes to the residual stream (its rows do; of embeddings, its columns), and what reads it behind a norm.
EMBEDDINGS = r"(token|position)_embedding\.weight"
WRITERS = r"blocks\.\d+\.(attn\.proj|ffn\.(experts\.|shared\.)?down)\.weight"
WRITER_BIASES = r"blocks\.\d+\.(attn\.proj|ffn\.down)\.bias"
READERS = (
    r"head\.weight|blocks\.\d+\.(attn\.(query|key|value|query_down|kv_down)|ffn\.(router|(experts\.|shared\.)?(gate|up)))"
    r"\.weight"
)
NORM_WEIGHTS = r"(ln_f|blocks\.\d+\.ln[12])\.weight"
NORM_BIASES = r"(ln_f|blocks\.\d+\.ln[12])\.bias"

# GELU(s·x)/s and SiLU(s·x)/s → ReLU(x) for large s. A power of two, so that the scaling itself loses nothing; larger
# ones push the weights that undo it below what float16 (and the float16 scales of quantized blocks) can hold well.
RELU_SCALE = 512.0
# SiLU(s·x)·x/s → ReLU(x)²; its error shrinks with s², and what undoes it is shared by two matrices.
SQUARE_SCALE, SQUARE_SHARE = 1024.0, 32.0
PADDED_WIDTH = 32  # of what is added to fill a shape: a block of the common quantized types
POSITION_ROWS = 256  # llama.cpp rounds a context up to a multiple of it and reads as many rows of the table
NEVER = -1e9  # added to the score of an expert that is not to be chosen


# ---- norms ----


def untie(graph: Graph) -> Graph:
    """Give the output layer a matrix of its own."""
    if not graph.s.tied:
        return graph
    return graph.change({"head.weight": graph.tensors["token_embedding.weight"]}, tied=False)


def centre(graph: Graph) -> Graph:
    """LayerNorm as RMSNorm: of a stream whose mean is always 0 they are the same.

    The mean is taken out of everything that is added to the stream. LayerNorm would have removed it anyway.
    """
    if graph.s.norm == "rms":
        return graph
    graph = untie(graph)
    return graph.change(
        graph.map(f"{EMBEDDINGS}|{WRITER_BIASES}", lambda x: x - x.mean(-1, keepdim=True))
        | graph.map(WRITERS, lambda x: x - x.mean(-2, keepdim=True)),
        norm="rms",
    )


def mirror(graph: Graph) -> Graph:
    """RMSNorm as LayerNorm: a stream [x, -x] of twice the width has mean 0, and the variance of x around 0.

    The second half is read by nobody, so that its norm's bias can stand for the constant 1: the bias of an output layer
    becomes a column of its matrix. As many heads of zeros keep heads as wide as they were.
    """
    if graph.s.norm == "layer" and not graph.s.head_bias:
        return graph
    graph = untie(centre(graph))
    width = graph.s.width
    tensors = graph.map(f"{EMBEDDINGS}|{WRITER_BIASES}", lambda x: join([x, -1 * x], -1))
    tensors |= graph.map(WRITERS, lambda x: join([x, -1 * x], -2))
    tensors |= graph.map(READERS, lambda x: F.pad(x, (0, width)))
    tensors |= graph.map(NORM_WEIGHTS, lambda x: F.pad(x, (0, width)))
    for name, weight in graph.map(NORM_WEIGHTS, lambda x: x).items():
        bias = name.replace("weight", "bias")
        tensors[bias] = F.pad(graph.tensors.get(bias, torch.zeros_like(weight)), (0, width))
    if graph.s.head_bias:
        tensors["ln_f.bias"][width] = 1.0
        tensors["head.weight"][:, width] = graph.tensors["head.bias"]
        graph = graph.without("head.bias")
    graph = graph.change(tensors, width=2 * width, norm="layer", norm_bias=True, head_bias=False)
    return _double_heads(graph)


def _double_heads(graph: Graph) -> Graph:
    """As many heads again, whose output is multiplied by zeros."""
    tensors: Tensors = {}
    layers = []
    for prefix, layer in graph.blocks():
        a = layer.attn
        if a.is_latent:
            return graph
        for name in ("query", "key", "value", "proj"):
            weight = graph.tensors[f"{prefix}attn.{name}.weight"]
            bias = graph.tensors.get(f"{prefix}attn.{name}.bias")
            if name == "proj":
                tensors[f"{prefix}attn.proj.weight"] = F.pad(weight, (0, a.n_head * a.head_dim))
                continue
            tensors[f"{prefix}attn.{name}.weight"] = _pad_rows(weight, len(weight))
            if bias is not None:
                tensors[f"{prefix}attn.{name}.bias"] = F.pad(bias, (0, len(bias)))
        layers.append(replace(layer, attn=replace(a, n_head=2 * a.n_head, n_kv_heads=2 * a.n_kv_heads)))
    return graph.change(tensors, layers=tuple(layers))


# ---- biases ----


def fold_head_bias(graph: Graph) -> Graph:
    """The bias of an output layer with at most as many tokens as the model is wide, as a shift of what it reads.

    The shift δ solves weight · δ = bias, and is added to the bias of the final norm. Left alone where there is none.
    """
    if not graph.s.head_bias or graph.s.vocab_size > graph.s.width or not graph.s.norm_bias:
        return graph
    weight, bias = graph.head_weight, graph.tensors["head.bias"]
    shift = torch.zeros_like(graph.tensors["ln_f.bias"])
    if not weight.is_meta:
        solution = torch.linalg.lstsq(weight.double(), bias.double()[:, None], driver="gelsd").solution[:, 0]
        miss = (weight.double() @ solution - bias).abs().max().item()
        if miss > 1e-5 * max(1.0, bias.abs().max().item()):
            return graph
        shift = solution.float()
    folded = {"ln_f.bias": graph.tensors["ln_f.bias"] + shift}
    return graph.change(folded, head_bias=False).without("head.bias")


def zero_biases(graph: Graph) -> Graph:
    """Biases of 0 in every norm, in attention and in dense feed-forward layers that have none."""
    tensors: Tensors = {}
    for name, weight in graph.map(NORM_WEIGHTS, lambda x: x).items():
        tensors.setdefault(name.replace("weight", "bias"), torch.zeros_like(weight))
    for pattern in (r"blocks\.\d+\.attn\.(query|key|value|proj)\.weight", r"blocks\.\d+\.ffn\.(gate|up|down)\.weight"):
        for name, weight in graph.map(pattern, lambda x: x).items():
            tensors[name.replace("weight", "bias")] = weight.new_zeros(len(weight))
    layers = tuple(
        Layer(
            replace(layer.attn, bias=True, out_bias=True),
            replace(layer.ffn, bias=True) if isinstance(layer.ffn, FeedForward) else layer.ffn,
        )
        for layer in graph.s.layers
    )
    blank = graph.s.blank_biases or not any(name.endswith(".bias") for name in graph.tensors)
    return graph.change({**tensors, **graph.tensors}, norm_bias=True, layers=layers, blank_biases=blank)


def drop_blank_biases(graph: Graph) -> Graph:
    """The inverse of `zero_biases`, where it made all the biases there are."""
    if not graph.s.blank_biases:
        return graph
    layers = tuple(
        Layer(
            replace(layer.attn, bias=False, out_bias=False),
            replace(layer.ffn, bias=False) if isinstance(layer.ffn, FeedForward) else layer.ffn,
        )
        for layer in graph.s.layers
    )
    bare = graph.without(*(name for name in graph.tensors if name.endswith(".bias")))
    return bare.change({}, norm_bias=False, layers=layers, blank_biases=False)


def bias_as_head(graph: Graph) -> Graph:
    """The bias of attention's output as a further head, whose values are all 1: attention weights sum to 1.

    A head of keys and values comes with as many heads of queries as the others have; the first of them does it.
    """
    tensors: Tensors = {}
    layers, spent = [], []
    for prefix, layer in graph.blocks():
        a = layer.attn
        layers.append(layer)
        if not a.out_bias or a.is_latent:
            continue
        group = a.n_head // a.n_kv_heads
        for name, n in (("query", group), ("key", 1), ("value", 1)):
            weight, bias = (graph.tensors.get(f"{prefix}attn.{name}.{kind}") for kind in ("weight", "bias"))
            bias = weight.new_zeros(len(weight)) if bias is None else bias
            tensors[f"{prefix}attn.{name}.weight"] = _pad_rows(weight, n * a.head_dim)
            tensors[f"{prefix}attn.{name}.bias"] = F.pad(bias, (0, n * a.head_dim))
        tensors[f"{prefix}attn.value.bias"][-a.head_dim] = 1.0
        proj = F.pad(graph.tensors[f"{prefix}attn.proj.weight"], (0, group * a.head_dim))
        proj[:, a.n_head * a.head_dim] = graph.tensors[f"{prefix}attn.proj.bias"]
        tensors[f"{prefix}attn.proj.weight"] = proj
        spent.append(f"{prefix}attn.proj.bias")
        heads = replace(a, n_head=a.n_head + group, n_kv_heads=a.n_kv_heads + 1, bias=True, out_bias=False)
        layers[-1] = replace(layer, attn=heads)
    return graph.change(tensors, layers=tuple(layers)).without(*spent)


def some_head_bias(graph: Graph) -> Graph:
    """A bias of 0 on the output layer where there is none."""
    if graph.s.head_bias:
        return graph
    return graph.change({"head.bias": graph.head_weight.new_zeros(graph.s.vocab_size)}, head_bias=True)


# ---- activations ----


def plain_gelu(graph: Graph) -> Graph:
    """ReLU without a gate as GELU."""
    return _each_ffn(_leaky_as_relu(graph), _relu_as("gelu"))


def plain_silu(graph: Graph) -> Graph:
    """ReLU without a gate as SiLU."""
    return _each_ffn(_leaky_as_relu(graph), _relu_as("silu"))


def gated_silu(graph: Graph) -> Graph:
    """Everything that SiLU with a gate, silu(gate)·up, can be.

    ReLU² is relu(x)·x; a gate of ReLU is a scaled one of SiLU. What has no gate gets an `up` of 1, a bias.
    """
    return _each_ffn(_each_ffn(_leaky_as_relu(graph), _square_as_gate), _plain_as_gate)


def squares_as_gates(graph: Graph) -> Graph:
    """ReLU² and gates of ReLU as gates of SiLU; what has no gate is left alone."""
    return _each_ffn(graph, _square_as_gate)


def squares_as_relu_gates(graph: Graph) -> Graph:
    """ReLU² as a gate of ReLU: relu(x)² is relu(x)·x."""

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if (ffn.activation, ffn.gated) != ("relu2", False):
            return ffn, {}
        gate = {name.replace("up.", "gate."): x.clone() for name, x in _parts(graph, prefix, "up").items()}
        return replace(ffn, activation="relu", gated=True), gate

    return _each_ffn(graph, rewrite)


Ffn = FeedForward | Experts


def _each_ffn(graph: Graph, rewrite: Callable[[Graph, str, Ffn], tuple[Ffn, Tensors]]) -> Graph:
    """`rewrite(graph, prefix, ffn)` of the feed-forward layer of every block, a shared expert along with the others."""
    tensors: Tensors = {}
    layers = []
    for prefix, layer in graph.blocks():
        ffn, new = rewrite(graph, prefix + "ffn.", layer.ffn)
        tensors |= new
        layers.append(replace(layer, ffn=ffn))
    return graph.change(tensors, layers=tuple(layers))


def _parts(graph: Graph, prefix: str, name: str) -> Tensors:
    """The matrices (and biases) `name` of a feed-forward layer, of its experts and of its shared one."""
    names = [f"{prefix}{part}{name}.{kind}" for part in ("", "experts.", "shared.") for kind in ("weight", "bias")]
    return {name: graph.tensors[name] for name in names if name in graph.tensors}


def _weights(tensors: Tensors, scale: float) -> Tensors:
    """Scaled matrices; biases are added after, so they stay."""
    return {name: x * scale for name, x in tensors.items() if name.endswith("weight")}


def _scaled(tensors: Tensors, scale: float) -> Tensors:
    return {name: x * scale for name, x in tensors.items()}


def _relu_as(activation: str) -> Callable[[Graph, str, Ffn], tuple[Ffn, Tensors]]:
    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if ffn.activation != "relu" or ffn.gated:
            return ffn, {}
        up, down = _parts(graph, prefix, "up"), _parts(graph, prefix, "down")
        return replace(ffn, activation=activation), _scaled(up, RELU_SCALE) | _weights(down, 1 / RELU_SCALE)

    return rewrite


def _square_as_gate(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
    up, down = _parts(graph, prefix, "up"), _parts(graph, prefix, "down")
    if (ffn.activation, ffn.gated) == ("relu2", False):
        gate = {name.replace("up.", "gate."): x for name, x in up.items()}
    elif (ffn.activation, ffn.gated) == ("relu", True):
        gate = _parts(graph, prefix, "gate")
    else:
        return ffn, {}
    undo = SQUARE_SHARE / SQUARE_SCALE
    tensors = _scaled(gate, SQUARE_SCALE) | _scaled(up, 1 / SQUARE_SHARE) | _weights(down, undo)
    return replace(ffn, activation="silu", gated=True), tensors


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


def _leaky_as_relu(graph: Graph) -> Graph:
    """LeakyReLU(x) = relu(x) - a·relu(-x), with twice as many hidden values."""

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if ffn.activation != "leaky_relu":
            return ffn, {}
        slope = 0.01  # PyTorch's
        tensors: Tensors = {}
        for name, x in _parts(graph, prefix, "up").items():
            tensors[name] = join([x, -1 * x], -2 if name.endswith("weight") else -1)
        for name, x in _parts(graph, prefix, "down").items():
            if name.endswith("weight"):
                tensors[name] = join([x, -slope * x], -1)
        wider: dict[str, int] = {"width": 2 * ffn.width}
        if isinstance(ffn, Experts):
            wider["shared_width"] = 2 * ffn.shared_width
        return replace(ffn, activation="relu", **wider), tensors

    return _each_ffn(graph, rewrite)


# ---- experts ----


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

    return _each_ffn(graph, rewrite)


def some_selection_bias(graph: Graph) -> Graph:
    """A bias of 0 on the choice of experts where there is none."""

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        if isinstance(ffn, FeedForward) or ffn.has_selection_bias:
            return ffn, {}
        router = graph.tensors[f"{prefix}router.weight"]
        return replace(ffn, has_selection_bias=True), {f"{prefix}selection_bias": router.new_zeros(len(router))}

    return _each_ffn(graph, rewrite)


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
    wide = _fill_heads(_constant_channel(graph))
    result = _each_ffn(wide, lambda *layer: _as_experts(*layer, constant=s.width))
    return result.without(*result.map(r"blocks\.\d+\.ffn\.(shared\..*|(gate|up|down)\..*)", lambda x: x))


def _constant_channel(graph: Graph) -> Graph:
    """A stream with further values that are always 0, behind a norm with a bias: there the first of them is 1.

    The norm's mean square is over more values then; its weights and its epsilon make up for it.
    """
    s = graph.s
    unit = math.lcm(PADDED_WIDTH, *(2 * layer.attn.n_head for layer in s.layers))  # heads of an even width rotate
    more = unit - s.width % unit
    shrink = s.width / (s.width + more)
    tensors = graph.map(f"{EMBEDDINGS}|{READERS}|{WRITER_BIASES}", lambda x: F.pad(x, (0, more)))
    tensors |= graph.map(WRITERS, lambda x: F.pad(x, (0, 0, 0, more)))
    tensors |= graph.map(NORM_WEIGHTS, lambda x: F.pad(x * shrink**0.5, (0, more)))
    tensors |= graph.map(NORM_BIASES, lambda x: F.pad(F.pad(x, (0, 1), value=1.0), (0, more - 1)))
    return graph.change(tensors, width=s.width + more, eps=s.eps * shrink)


def _fill_heads(graph: Graph) -> Graph:
    """Heads that together are as wide as the model, filled with zeros that do not rotate."""
    tensors: Tensors = {}
    layers = []
    for prefix, layer in graph.blocks():
        a = layer.attn
        width = graph.s.width // a.n_head
        more, stretch = width - a.head_dim, (width / a.head_dim) ** 0.5  # scores are divided by the root of the width
        for name, scale in (("query", stretch), ("key", 1.0), ("value", 1.0)):
            for kind in ("weight", "bias"):
                x = graph.tensors.get(f"{prefix}attn.{name}.{kind}")
                if x is not None:
                    heads = x.unflatten(0, (-1, a.head_dim)) * scale
                    padding = (0, more) if kind == "bias" else (0, 0, 0, more)
                    tensors[f"{prefix}attn.{name}.{kind}"] = F.pad(heads, padding).flatten(0, 1)
        proj = graph.tensors[f"{prefix}attn.proj.weight"].unflatten(1, (-1, a.head_dim))
        tensors[f"{prefix}attn.proj.weight"] = F.pad(proj, (0, more)).flatten(1)
        layers.append(replace(layer, attn=replace(a, head_dim=width, rope_dim=a.head_dim)))
    return graph.change(tensors, layers=tuple(layers))


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
    gate, up, down = (F.pad(x, (0, 0, 0, PADDED_WIDTH)) for x in (gate, up, down.mT))
    bias = graph.tensors.get(f"{prefix}down.bias")
    if bias is not None:  # of one hidden value more, which is always 1
        gate[:, -PADDED_WIDTH, constant] = 1.0
        up[:, -PADDED_WIDTH, constant] = 1 / F.silu(torch.tensor(1.0))
        down[:, -PADDED_WIDTH] = bias
    tensors = {f"{prefix}experts.{name}.weight": x for name, x in (("gate", gate), ("up", up), ("down", down.mT))}
    if isinstance(ffn, Experts):
        width = gate.shape[1]
        return replace(ffn, width=width, activation="silu", gated=True, shared_width=0), tensors
    tensors[f"{prefix}router.weight"] = gate.new_zeros(1, graph.s.width)
    return Experts(1, 1, gate.shape[1], "silu", True, "softmax", 0, False), tensors


# ---- layers that differ ----


def align_heads(graph: Graph) -> Graph:
    """Heads of one width in all layers: the least common multiple, filled with zeros.

    A pair of values that rotates moves to where the wider head rotates just as fast. Queries are scaled, since scores
    are divided by the root of the width; with normalised queries and keys, so is what is normalised.
    """
    widths = {layer.attn.head_dim for layer in graph.s.layers}
    rotates = graph.s.n_positions is None and not any(layer.attn.is_latent for layer in graph.s.layers)
    if len(widths) == 1 or not rotates:
        return graph
    width = math.lcm(*widths)
    tensors: Tensors = {}
    layers = []
    for prefix, layer in graph.blocks():
        a = layer.attn
        factor = width // a.head_dim
        stretch = factor**0.5
        half = torch.arange(a.head_dim // 2) * factor
        # Where each value of a head goes; values keep their places.
        turning = join([half, half + width // 2], 0)
        still = torch.arange(a.head_dim)
        for name, n, places, scale in (
            ("query", a.n_head, turning, stretch),
            ("key", a.n_kv_heads, turning, stretch if a.qk_norm else 1.0),
            ("value", a.n_kv_heads, still, 1.0),
        ):
            for kind in ("weight", "bias"):
                x = graph.tensors.get(f"{prefix}attn.{name}.{kind}")
                if x is not None:
                    heads = _spread(x.unflatten(0, (n, a.head_dim)), 1, places, width)
                    tensors[f"{prefix}attn.{name}.{kind}"] = heads.flatten(0, 1) * scale
        # RMSNorm over zeros sees a smaller mean square, by just what the scale above makes up for; what it gives is
        # `stretch` too large for keys, and for queries that is what scores need.
        for name, scale in (("query_norm", 1.0), ("key_norm", 1 / stretch)):
            x = graph.tensors.get(f"{prefix}attn.{name}.weight")
            if x is not None:
                tensors[f"{prefix}attn.{name}.weight"] = _spread(x, 0, turning, width) * scale
        proj = graph.tensors[f"{prefix}attn.proj.weight"].unflatten(1, (a.n_head, a.head_dim))
        tensors[f"{prefix}attn.proj.weight"] = _spread(proj, 2, still, width).flatten(1)
        layers.append(replace(layer, attn=replace(a, head_dim=width)))
    return graph.change(tensors, layers=tuple(layers))


def align_widths(graph: Graph) -> Graph:
    """Dense feed-forward layers of one width, and experts of one width and number, filled with zeros.

    Experts that were added are never chosen: their selection bias says so. But they have a share in a softmax, which
    only a division by the sum of those chosen takes out again; where there is none, the graph is left alone.
    """
    dense = max((x.ffn.width for x in graph.s.layers if isinstance(x.ffn, FeedForward)), default=0)
    mixtures = [x.ffn for x in graph.s.layers if isinstance(x.ffn, Experts)]
    width = max((m.width for m in mixtures), default=0)
    n = max((m.n for m in mixtures), default=0)
    shared = max((m.shared_width for m in mixtures), default=0)
    if any(m.n < n for m in mixtures):
        if any(m.scoring == "softmax" and not m.renormalized for m in mixtures):
            return graph
        graph = some_selection_bias(graph)

    def rewrite(graph: Graph, prefix: str, ffn: Ffn) -> tuple[Ffn, Tensors]:
        tensors: Tensors = {}
        if isinstance(ffn, FeedForward):
            tensors |= _fill(graph, prefix, dense - ffn.width)
            return replace(ffn, width=dense), tensors
        tensors |= _fill(graph, prefix + "experts.", width - ffn.width)
        if ffn.shared_width:
            tensors |= _fill(graph, prefix + "shared.", shared - ffn.shared_width)
        if more := n - ffn.n:
            for name in ("gate", "up", "down"):
                x = tensors.get(f"{prefix}experts.{name}.weight", graph.tensors.get(f"{prefix}experts.{name}.weight"))
                if x is not None:
                    tensors[f"{prefix}experts.{name}.weight"] = F.pad(x, (0, 0, 0, 0, 0, more))
            tensors[f"{prefix}router.weight"] = _pad_rows(graph.tensors[f"{prefix}router.weight"], more)
            bias = graph.tensors[f"{prefix}selection_bias"]
            tensors[f"{prefix}selection_bias"] = F.pad(bias, (0, more), value=NEVER)
        return replace(ffn, n=n, width=width, shared_width=shared if ffn.shared_width else 0), tensors

    return _each_ffn(graph, rewrite)


def deepen(graph: Graph, n_layers: int) -> Graph:
    """As many layers, of which those added write zeros to the stream."""
    s = graph.s
    last = f"blocks.{len(s.layers) - 1}."
    tensors: Tensors = {}
    for i in range(len(s.layers), n_layers):
        for name, x in graph.tensors.items():
            if name.startswith(last):
                silent = re.fullmatch(f"{WRITERS}|{WRITER_BIASES}", name)
                tensors[name.replace(last, f"blocks.{i}.")] = torch.zeros_like(x) if silent else x.clone()
    return graph.change(tensors, layers=s.layers + s.layers[-1:] * (n_layers - len(s.layers)))


# ---- positions ----


def pad_positions(graph: Graph) -> Graph:
    """A table of positions with as many rows as llama.cpp reads."""
    rows = graph.s.n_positions
    if rows is None or rows % POSITION_ROWS == 0:
        return graph
    table = _pad_rows(graph.tensors["position_embedding.weight"], -rows % POSITION_ROWS)
    return graph.change({"position_embedding.weight": table}, n_positions=len(table))


def _fill(graph: Graph, prefix: str, more: int) -> Tensors:
    """`more` hidden values of 0 in a feed-forward layer."""
    if not more:
        return {}
    rows, values = (0, 0, 0, more), (0, more)
    paddings = {"gate.weight": rows, "up.weight": rows, "gate.bias": values, "up.bias": values, "down.weight": values}
    return {
        prefix + name: F.pad(graph.tensors[prefix + name], padding)
        for name, padding in paddings.items()
        if prefix + name in graph.tensors
    }


def _pad_rows(x: torch.Tensor, n: int) -> torch.Tensor:
    """`n` rows of zeros more, (rows, columns) → (rows + n, columns)."""
    return F.pad(x, (0, 0, 0, n))


def _spread(x: torch.Tensor, dim: int, places: torch.Tensor, size: int) -> torch.Tensor:
    """Zeros of `size` along `dim`, with the values of `x` at `places`."""
    shape = list(x.shape)
    shape[dim] = size
    return x.new_zeros(shape).index_copy(dim, places.to(x.device), x)
