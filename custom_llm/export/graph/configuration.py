"""The configuration of a model that computes a graph: the inverse of `Graph.of_model`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch

from custom_llm.config.model import MODEL_DEFAULTS, ModelConfig
from custom_llm.export.graph.check import expected_shapes
from custom_llm.export.graph.graph import (
    GATE_ACTIVATIONS,
    Experts,
    FeedForward,
    Graph,
    Layer,
    Structure,
    Tensors,
)
from custom_llm.export.graph.rewrites.norms import with_biases

GATES = {activation: name for name, activation in GATE_ACTIVATIONS.items()}


def as_model(graph: Graph) -> tuple[ModelConfig, Tensors]:
    """The configuration of a model that computes this, and its state dict. ValueError where none of ours does."""
    graph = _with_all_biases(graph)
    config = configuration_of(graph.s)
    return config, graph.to_model(config)


def configuration_of(s: Structure) -> ModelConfig:
    """The configuration of a model of this structure. ValueError where no model of ours has it."""
    blocks = [_block(layer) for layer in s.layers]
    a = s.first.attn
    bias = a.out_bias
    values: dict[str, Any] = dict(
        vocab_size=s.vocab_size, n_embd=s.width, n_head=a.n_head, n_layer=len(s.layers), block_size=s.block_size,
        dropout=s.dropout, pos_emb="rope" if s.n_positions is None else "learn", norm=s.norm, bias=bias,
        tie_embeddings=s.tied, head_bias=s.head_bias, qk_norm=a.qk_norm, qk_norm_over=a.qk_norm_over,
        attn_scale=a.scale, attn_softcap=a.softcap, rotary_dim=a.rotary_dim, norm_place=s.norm_place, norm_eps=s.eps,
        parallel_residual=s.parallel, logit_softcap=s.logit_softcap, scale_embeddings=s.embedding_scale != 1,
        rope_scaling=s.rope_scaling, rope_factor=s.rope_factor, rope_original=s.rope_original,
        rope_attention=s.rope_attention,
    )  # fmt: skip
    if s.n_positions is None:
        values["rope_base"] = s.rope_base
    if a.bias != bias:
        values["qkv_bias"] = a.bias
    if a.head_dim * a.n_head != s.width or s.width % a.n_head:
        values["head_dim"] = a.head_dim
    values |= _windows(s)
    if len({json.dumps(block) for block in blocks}) == 1:
        values |= blocks[0]
    else:
        values["layer_configs"] = json.dumps(blocks)
    return ModelConfig(**{name: value for name, value in values.items() if value != MODEL_DEFAULTS[name]})


def _block(layer: Layer) -> dict[str, Any]:
    """The options of a block, as `layer_configs` has them."""
    a, ffn = layer.attn, layer.ffn
    kind = "mha" if a.n_kv_heads == a.n_head else "mqa" if a.n_kv_heads == 1 else "gqa"
    block: dict[str, Any] = {"attn": "mla" if a.is_latent else kind, "n_head": a.n_head}
    if a.is_latent:
        block |= {"q_latent_dim": a.q_latent, "kv_latent_dim": a.kv_latent}
        block |= {"rope_head_dim": a.rope_dim} if a.rope_dim else {}
    elif kind == "gqa":
        block["n_kv_heads"] = a.n_kv_heads
    if ffn.gated and ffn.activation not in GATES:
        raise ValueError(f"its gates are {ffn.activation}; {', '.join(GATES)} are known here")
    block["non_linearity"] = GATES[ffn.activation] if ffn.gated else ffn.activation
    block |= {"moe": isinstance(ffn, Experts), "up_dim": ffn.width}
    if isinstance(ffn, FeedForward):
        return block
    n_shared, rest = divmod(ffn.shared_width, ffn.width)
    if rest:
        raise ValueError(f"its shared expert is {ffn.shared_width} wide, no multiple of the others' {ffn.width}")
    sigmoid = ffn.scoring == "sigmoid"
    if sigmoid != ffn.has_selection_bias:
        raise ValueError(f"its experts' scores are a {ffn.scoring}, {'with no' if sigmoid else 'with a'} bias")
    block |= {"n_exp": ffn.n + n_shared, "n_shared": n_shared, "n_act": ffn.n_chosen + n_shared, "aux_free": sigmoid}
    block |= {"alpha": 0.0001, "gamma": 0.001} if sigmoid else {"coeff": 0.01}
    optional = {
        "norm_topk": ffn.norm_topk,
        "routed_scale": None if ffn.routed_scale == 1 else ffn.routed_scale,
        "n_group": None if ffn.n_group == 1 else ffn.n_group,
        "topk_group": None if ffn.topk_group == ffn.n_group else ffn.topk_group,
    }
    return block | {name: value for name, value in optional.items() if value is not None}


def _windows(s: Structure) -> dict[str, Any]:
    """Options of the windows of layers."""
    windows = [layer.attn.window for layer in s.layers]
    sizes = set(windows) - {None}
    if not sizes:
        return {}
    full = [i + 1 for i, window in enumerate(windows) if window is None]
    every = full[0] if full else None
    if len(sizes) > 1 or (full and (every < 2 or full != list(range(every, len(windows) + 1, every)))):
        raise ValueError("its layers with a sliding window follow no pattern that is known here")
    return {"sliding_window": sizes.pop(), "full_every": every, "rope_base_local": s.rope_base_local}


def _with_all_biases(graph: Graph) -> Graph:
    """Biases of 0 where a model of ours has them together with others: with attention's output, or with all."""
    layers = graph.s.layers
    dense = [layer for layer in layers if isinstance(layer.ffn, FeedForward)]
    facts = [layer.attn.out_bias for layer in layers] + [layer.ffn.bias for layer in dense]
    facts += [graph.s.norm_bias] if graph.s.norm == "layer" else []
    some = {layer.attn.bias for layer in layers}
    if len(set(facts)) == 1 and len(some) == 1:
        return graph
    norm_bias = graph.s.norm == "layer"
    shapes = expected_shapes(replace(graph.s, norm_bias=norm_bias, layers=with_biases(graph, True)))
    blank = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in graph.tensors}
    return graph.change(blank, norm_bias=norm_bias, layers=with_biases(graph, True))
