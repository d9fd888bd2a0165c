"""What rewrites have in common: which tensors are what, and how to go through the layers.

Each rewrite takes a graph and returns a graph, the same one where there is nothing to do; none looks at what it is for.
"Exact" means: equal in real arithmetic (`centre`, `mirror`, paddings, constants), or in the limit of a scale so large
that the rest is below float32's rounding noise (ReLU from GELU or SiLU).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import wraps

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
Rewrite = Callable[[Graph], Graph]


def widen(x: torch.Tensor, n: int, dim: int = -1) -> torch.Tensor:
    """`x` and behind it `n` zeros along the dimension `dim`, which is counted from the last, -1."""
    return F.pad(x, (0, 0) * (-1 - dim) + (0, n))


def each_layer(rewrite: Callable[[Layer, Tensors], tuple[Layer, Tensors]]) -> Rewrite:
    """A rewrite of all layers from one of a layer and its tensors, whose names begin with "ln1.", "attn." or "ffn."."""

    @wraps(rewrite)
    def of_graph(graph: Graph) -> Graph:
        tensors: Tensors = {}
        own: list[Tensors] = [{} for _ in graph.s.layers]
        for name, x in graph.tensors.items():
            if name.startswith("blocks."):
                _, i, short = name.split(".", 2)
                own[int(i)][short] = x
            else:
                tensors[name] = x
        layers = []
        for i, layer in enumerate(graph.s.layers):
            layer, new = rewrite(layer, own[i])
            layers.append(layer)
            tensors |= {f"blocks.{i}.{short}": x for short, x in new.items()}
        return Graph(replace(graph.s, layers=tuple(layers)), tensors)

    return of_graph


def each_ffn(rewrite: Callable[[Ffn, Tensors], tuple[Ffn, Tensors]]) -> Rewrite:
    """The same from one of a feed-forward layer, a shared expert along with the others; without "ffn." in names."""

    @wraps(rewrite)
    def of_layer(layer: Layer, x: Tensors) -> tuple[Layer, Tensors]:
        rest = {name: y for name, y in x.items() if not name.startswith("ffn.")}
        ffn, new = rewrite(layer.ffn, {name.removeprefix("ffn."): y for name, y in x.items() if name not in rest})
        return replace(layer, ffn=ffn), rest | {f"ffn.{name}": y for name, y in new.items()}

    return each_layer(of_layer)


def scaled(x: Tensors, part: str, scale: float) -> Tensors:
    """Those whose names begin with `part`, of a feed-forward layer, its experts and its shared one, times `scale`."""
    return {name: y * scale for name, y in x.items() if re.match(rf"((experts|shared)\.)?{part}", name)}


def with_heads(x: Tensors, head_dim: int, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Tensors:
    """Queries, keys and values with other heads: `change(name, y)` of y (n heads, head_dim, …), weights and biases."""
    return {
        name: change(name.split(".")[1], y.unflatten(0, (-1, head_dim))).flatten(0, 1)
        for name, y in x.items()
        if re.match(r"attn\.(query|key|value)\.", name)
    }


@each_layer
def usual_scale(layer: Layer, x: Tensors) -> tuple[Layer, Tensors]:
    """Scores that are multiplied by 1/√width: the rest of another factor is one of queries, or of their norm."""
    a = layer.attn
    if a.scale is None or a.is_latent:
        return layer, x
    rest = a.scale * a.head_dim**0.5
    names = ["attn.query_norm.weight"] if a.qk_norm else ["attn.query.weight", "attn.query.bias"]
    return replace(layer, attn=replace(a, scale=None)), x | {name: x[name] * rest for name in names if name in x}


def usual_embeddings(graph: Graph) -> Graph:
    """Embeddings that are not multiplied, since they are larger."""
    scale = graph.s.embedding_scale
    if scale == 1:
        return graph
    table = graph.tensors["token_embedding.weight"]
    head = {"head.weight": table} if graph.s.tied else {}
    return graph.change({"token_embedding.weight": table * scale, **head}, tied=False, embedding_scale=1.0)
