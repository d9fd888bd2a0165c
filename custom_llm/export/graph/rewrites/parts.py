"""What rewrites have in common: which tensors are what, and how to go through the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from custom_llm.export.graph.graph import Experts, FeedForward, Graph, Layer, Tensors

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

Ffn = FeedForward | Experts


def widen(x: torch.Tensor, n: int, dim: int = -1) -> torch.Tensor:
    """`x` and behind it `n` zeros along the dimension `dim`, which is counted from the last, -1."""
    return F.pad(x, (0, 0) * (-1 - dim) + (0, n))


def each_layer(graph: Graph, rewrite: Callable[[str, Layer], tuple[Layer, Tensors]]) -> Graph:
    """What `rewrite(prefix, layer)` makes of every layer: what it is then, and the tensors that are new."""
    tensors: Tensors = {}
    layers = []
    for prefix, layer in graph.blocks():
        layer, new = rewrite(prefix, layer)
        layers.append(layer)
        tensors |= new
    return graph.change(tensors, layers=tuple(layers))


def each_ffn(graph: Graph, rewrite: Callable[[Graph, str, Ffn], tuple[Ffn, Tensors]]) -> Graph:
    """`rewrite(graph, prefix, ffn)` of the feed-forward layer of every block, a shared expert along with the others."""

    def of_layer(prefix: str, layer: Layer) -> tuple[Layer, Tensors]:
        ffn, tensors = rewrite(graph, f"{prefix}ffn.", layer.ffn)
        return replace(layer, ffn=ffn), tensors

    return each_layer(graph, of_layer)


def ffn_parts(graph: Graph, prefix: str, name: str) -> Tensors:
    """The matrices (and biases) `name` of a feed-forward layer, of its experts and of its shared one."""
    names = [f"{prefix}{part}{name}.{kind}" for part in ("", "experts.", "shared.") for kind in ("weight", "bias")]
    return {name: graph.tensors[name] for name in names if name in graph.tensors}


def head_parts(
    graph: Graph, prefix: str, head_dim: int, change: Callable[[str, torch.Tensor], torch.Tensor]
) -> Tensors:
    """Queries, keys and values with other heads: `change(name, x)` of x (n heads, head_dim, …), weights and biases."""
    tensors: Tensors = {}
    for name in ("query", "key", "value"):
        for part in (f"{prefix}attn.{name}.weight", f"{prefix}attn.{name}.bias"):
            if part in graph.tensors:
                tensors[part] = change(name, graph.tensors[part].unflatten(0, (-1, head_dim))).flatten(0, 1)
    return tensors
