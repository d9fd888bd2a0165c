"""Layers that differ as layers that are alike, and as many layers and positions as are asked for."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import torch
import torch.nn.functional as F

from custom_llm.export.graph.graph import FeedForward, Graph, Layer, Tensors, join
from custom_llm.export.graph.rewrites.experts import some_selection_bias
from custom_llm.export.graph.rewrites.parts import WRITER_BIASES, WRITERS, Ffn, each_ffn, each_layer, widen, with_heads

POSITION_ROWS = 256  # llama.cpp rounds a context up to a multiple of it and reads as many rows of the table
NEVER = -1e9  # added to the score of an expert that must not be chosen


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

    @each_layer
    def rewrite(layer: Layer, x: Tensors) -> tuple[Layer, Tensors]:
        a = layer.attn
        factor = width // a.head_dim
        stretch = factor**0.5
        half = torch.arange(a.head_dim // 2) * factor
        # Where each value of a head goes; values keep their places.
        turning = join([half, half + width // 2], 0)
        still = torch.arange(a.head_dim)
        scales = {"query": stretch, "key": stretch if a.qk_norm else 1.0, "value": 1.0}
        proj = x["attn.proj.weight"].unflatten(1, (a.n_head, a.head_dim))
        new = {"attn.proj.weight": _spread(proj, 2, still, width).flatten(1)}
        new |= with_heads(
            x, a.head_dim, lambda name, y: _spread(y, 1, still if name == "value" else turning, width) * scales[name]
        )
        # RMSNorm over zeros sees a smaller mean square, by just what the scale above makes up for; what it gives is
        # `stretch` too large for keys, and for queries that is what scores need.
        for name, scale in (("attn.query_norm.weight", 1.0), ("attn.key_norm.weight", 1 / stretch)):
            if name in x:
                new[name] = _spread(x[name], 0, turning, width) * scale
        return replace(layer, attn=replace(a, head_dim=width)), x | new

    return rewrite(graph)


def _spread(x: torch.Tensor, dim: int, places: torch.Tensor, size: int) -> torch.Tensor:
    """Zeros of `size` along `dim`, with the values of `x` at `places`."""
    shape = list(x.shape)
    shape[dim] = size
    return x.new_zeros(shape).index_copy(dim, places.to(x.device), x)


def align_widths(graph: Graph) -> Graph:
    """Dense feed-forward layers of one width, and experts of one width and number, filled with zeros.

    Experts that were added are never chosen: their selection bias says so. But they have a share in a softmax, which
    only a division by the sum of those chosen takes out again; where there is none, the graph is left alone.
    """
    dense, mixtures = max((ffn.width for ffn in graph.s.dense), default=0), graph.s.mixtures
    width = max((m.width for m in mixtures), default=0)
    n = max((m.n for m in mixtures), default=0)
    shared = max((m.shared_width for m in mixtures), default=0)
    if any(m.n < n for m in mixtures):
        if any(m.scoring == "softmax" and not m.renormalized for m in mixtures):
            return graph
        graph = some_selection_bias(graph)

    @each_ffn
    def rewrite(ffn: Ffn, x: Tensors) -> tuple[Ffn, Tensors]:
        if isinstance(ffn, FeedForward):
            return replace(ffn, width=dense), x | _fill(x, "", dense - ffn.width)
        x = x | _fill(x, "experts.", width - ffn.width) | _fill(x, "shared.", shared - ffn.shared_width)
        if more := n - ffn.n:
            x |= {name: widen(y, more, -3) for name, y in x.items() if name.startswith("experts.")}
            x["router.weight"] = widen(x["router.weight"], more, -2)
            x["selection_bias"] = F.pad(x["selection_bias"], (0, more), value=NEVER)
        return replace(ffn, n=n, width=width, shared_width=shared if ffn.shared_width else 0), x

    return rewrite(graph)


def _fill(x: Tensors, prefix: str, more: int) -> Tensors:
    """`more` hidden values of 0 in a feed-forward layer."""
    dims = {"gate.weight": -2, "up.weight": -2, "gate.bias": -1, "up.bias": -1, "down.weight": -1}
    names = [name for name in dims if more and prefix + name in x]
    return {prefix + name: widen(x[prefix + name], more, dims[name]) for name in names}


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


def pad_positions(graph: Graph) -> Graph:
    """A table of positions with as many rows as llama.cpp reads.

    The last row again and again: what other programs write past the window is worse than in it, whatever stands there,
    but least with these rows (3.0 nats a character, against 3.5 with zeros, and 0.8 within the window of 128).
    """
    rows = graph.s.n_positions
    if rows is None or rows % POSITION_ROWS == 0:
        return graph
    table = graph.tensors["position_embedding.weight"]
    table = join([table, table[-1:].expand(-rows % POSITION_ROWS, -1)], 0)
    return graph.change({"position_embedding.weight": table}, n_positions=len(table))
