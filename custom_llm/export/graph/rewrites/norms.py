"""Norms and biases: LayerNorm as RMSNorm and the other way round, and biases where there are none or may be none."""

from __future__ import annotations

from dataclasses import replace

import torch

from custom_llm.export.graph.graph import FeedForward, Graph, Layer, Tensors, join
from custom_llm.export.graph.rewrites.parts import (
    EMBEDDINGS,
    NORM_WEIGHTS,
    READERS,
    WRITER_BIASES,
    WRITERS,
    each_layer,
    widen,
)


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
    tensors |= graph.map(f"{READERS}|{NORM_WEIGHTS}", lambda x: widen(x, width))
    for name, weight in graph.map(NORM_WEIGHTS, lambda x: x).items():
        bias = name.replace("weight", "bias")
        tensors[bias] = widen(graph.tensors.get(bias, torch.zeros_like(weight)), width)
    if graph.s.head_bias:
        tensors["ln_f.bias"][width] = 1.0
        tensors["head.weight"][:, width] = graph.tensors["head.bias"]
        graph = graph.without("head.bias")
    graph = graph.change(tensors, width=2 * width, norm="layer", norm_bias=True, head_bias=False)
    if any(layer.attn.is_latent for layer in graph.s.layers):
        return graph
    heads = graph.map(r"blocks\.\d+\.attn\.(query|key|value)\.weight", lambda x: widen(x, len(x), -2))
    heads |= graph.map(r"blocks\.\d+\.attn\.(query|key|value)\.bias", lambda x: widen(x, len(x)))
    heads |= graph.map(r"blocks\.\d+\.attn\.proj\.weight", lambda x: widen(x, x.shape[1]))
    attns = [layer.attn for layer in graph.s.layers]
    doubled = [replace(a, n_head=2 * a.n_head, n_kv_heads=2 * a.n_kv_heads) for a in attns]
    return graph.change(heads, layers=tuple(map(Layer, doubled, (layer.ffn for layer in graph.s.layers))))


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
    pattern = rf"{NORM_WEIGHTS}|blocks\.\d+\.(attn\.(query|key|value|proj)|ffn\.(gate|up|down))\.weight"
    zeros = graph.map(pattern, lambda weight: weight.new_zeros(len(weight)))
    tensors = {name.replace("weight", "bias"): zero for name, zero in zeros.items()}
    blank = graph.s.blank_biases or not any(name.endswith(".bias") for name in graph.tensors)
    return graph.change(
        {**tensors, **graph.tensors}, norm_bias=True, layers=with_biases(graph, True), blank_biases=blank
    )


def drop_blank_biases(graph: Graph) -> Graph:
    """The inverse of `zero_biases`, where it made all the biases there are."""
    if not graph.s.blank_biases:
        return graph
    bare = graph.without(*graph.map(r".*\.bias", lambda x: x))
    return bare.change({}, norm_bias=False, layers=with_biases(graph, False), blank_biases=False)


def with_biases(graph: Graph, bias: bool) -> tuple[Layer, ...]:
    """The layers with biases in attention and in dense feed-forward layers, or without."""
    return tuple(
        Layer(
            replace(layer.attn, bias=bias, out_bias=bias),
            replace(layer.ffn, bias=bias) if isinstance(layer.ffn, FeedForward) else layer.ffn,
        )
        for layer in graph.s.layers
    )


@each_layer
def bias_as_head(layer: Layer, x: Tensors) -> tuple[Layer, Tensors]:
    """The bias of attention's output as a further head, whose values are all 1: attention weights sum to 1.

    A head of keys and values comes with as many heads of queries as the others have; the first of them does it.
    """
    a = layer.attn
    if not a.out_bias or a.is_latent:
        return layer, x
    group = a.n_head // a.n_kv_heads
    x = dict(x)
    for name, n in (("attn.query", group), ("attn.key", 1), ("attn.value", 1)):
        weight = x[f"{name}.weight"]
        bias = x.get(f"{name}.bias", weight.new_zeros(len(weight)))
        x[f"{name}.weight"] = widen(weight, n * a.head_dim, -2)
        x[f"{name}.bias"] = widen(bias, n * a.head_dim)
    x["attn.value.bias"][-a.head_dim] = 1.0
    x["attn.proj.weight"] = widen(x["attn.proj.weight"], group * a.head_dim)
    x["attn.proj.weight"][:, a.n_head * a.head_dim] = x.pop("attn.proj.bias")
    heads = replace(a, n_head=a.n_head + group, n_kv_heads=a.n_kv_heads + 1, bias=True, out_bias=False)
    return replace(layer, attn=heads), x


def some_head_bias(graph: Graph) -> Graph:
    """A bias of 0 on the output layer where there is none."""
    if graph.s.head_bias:
        return graph
    return graph.change({"head.bias": graph.head_weight.new_zeros(graph.s.vocab_size)}, head_bias=True)
