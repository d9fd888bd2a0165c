"""The graphs of llama.cpp that models are exported as: what each computes, its names, its metadata.

To add one: an entry in ARCHITECTURES, which needs what it accepts, a table of names and its metadata. Only a tensor of
a new kind needs more: its shape in `graph.check`. tests/export/test_tables.py tells what is missing,
test_architectures.py whether it is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from custom_llm.export.graph.graph import Attention, Experts, Graph, Layer, Structure, Tensors
from custom_llm.export.graph.rewrites.activations import gated_silu, plain_gelu, plain_silu, squares_as_gates
from custom_llm.export.graph.rewrites.experts import all_as_experts, some_selection_bias, some_shared_expert
from custom_llm.export.graph.rewrites.layers import align_heads, align_widths, deepen, pad_positions
from custom_llm.export.graph.rewrites.norms import (
    bias_as_head,
    centre,
    drop_blank_biases,
    fold_head_bias,
    mirror,
    some_head_bias,
    untie,
    zero_biases,
)
from custom_llm.export.graph.rewrites.parts import each_layer
from custom_llm.export.graph.target import CLASSIC, EITHER, SWIGLU, Accepts, Target, choose
from custom_llm.export.graph.tensor_names import TensorRow, rename
from custom_llm.export.huggingface.classes import (
    BY_NAME,
    DEEPSEEK_FOR_CONVERTER,
    QKV,
    HFClass,
    mla_key,
    mla_query,
    neighbours,
)

GATING = {"softmax": 1, "sigmoid": 2}  # llama.cpp's `llama_expert_gating_func_type`
Metadata = dict[str, Any]


@dataclass(frozen=True)
class Architecture(Target):
    """A graph of llama.cpp, called as its `general.architecture`."""

    metadata: Callable[[Structure], Metadata]  # its keys without the name in front, beyond those all have
    converted_from: HFClass | None = None  # of which llama.cpp's own converter makes this,
    converted_if: Callable[[Structure], bool] = lambda s: True  # unless it reads a structure wrongly

    def is_converted(self, s: Structure) -> bool:
        """Whether llama.cpp's own converter writes this of a Hugging Face directory with that structure."""
        return self.converted_from is not None and self.converted_if(s) and self.converted_from.accepts.fits(s)

    def tensors(self, graph: Graph) -> Tensors:
        """A prepared graph's tensors under GGUF's names."""
        return rename(graph.tensors, graph.s, self.names)

    def all_metadata(self, s: Structure) -> Iterator[tuple[str, Any]]:
        """Every key with its value."""
        for key, value in {**_common(s), **self.metadata(s)}.items():
            if value is not None:
                yield f"{self.name}.{key}", value


def choose_architecture(graph: Graph) -> tuple[Architecture, Graph] | None:
    """The first architecture that computes what a graph computes, and the graph as it does, or None."""
    return choose(ARCHITECTURES, drop_blank_biases(graph))


# ---- names ----


def _rotated(x: torch.Tensor, a: Attention) -> torch.Tensor:
    return neighbours(x, a.head_dim, a.head_dim)


BASIC = {
    "token_embd.weight": "token_embedding.weight",
    "position_embd.weight": "position_embedding.weight",
    "blk.{i}.attn_norm.*": "blocks.{i}.ln1.*",
    "blk.{i}.attn_q.*": "blocks.{i}.attn.query.*",
    "blk.{i}.attn_k.*": "blocks.{i}.attn.key.*",
    "blk.{i}.attn_v.*": "blocks.{i}.attn.value.*",
    "blk.{i}.attn_output.*": "blocks.{i}.attn.proj.*",
    "blk.{i}.attn_q_norm.weight": "blocks.{i}.attn.query_norm.weight",
    "blk.{i}.attn_k_norm.weight": "blocks.{i}.attn.key_norm.weight",
    "blk.{i}.ffn_norm.*": "blocks.{i}.ln2.*",
    "blk.{i}.ffn_{part}.*": "blocks.{i}.ffn.{part}.*",
    "blk.{i}.ffn_gate_inp.weight": "blocks.{i}.ffn.router.weight",
    "blk.{i}.exp_probs_b.bias": "blocks.{i}.ffn.selection_bias",
    "blk.{i}.ffn_{part}_exps.weight": "blocks.{i}.ffn.experts.{part}.weight",
    "blk.{i}.ffn_{part}_shexp.weight": "blocks.{i}.ffn.shared.{part}.weight",
    "output_norm.*": "ln_f.*",
    "output.weight": "head.weight",
}
WITHOUT_HEADS = {theirs: ours for theirs, ours in BASIC.items() if not re.search("attn_[qkv]", theirs)}
FUSED = {"blk.{i}.attn_qkv.*": TensorRow(QKV), **WITHOUT_HEADS}
NEIGHBOURS = {
    **BASIC,
    "blk.{i}.attn_q.*": TensorRow(("blocks.{i}.attn.query.*",), _rotated),
    "blk.{i}.attn_k.*": TensorRow(("blocks.{i}.attn.key.*",), _rotated),
}
POST_NORM = {("blk.{i}.post_attention_norm.*" if "ffn_norm" in k else k): v for k, v in BASIC.items()}
LATENT = {
    **WITHOUT_HEADS,
    "blk.{i}.attn_q.weight": TensorRow(("blocks.{i}.attn.query.weight",), mla_query),
    "blk.{i}.attn_q_a.weight": "blocks.{i}.attn.query_down.weight",
    "blk.{i}.attn_q_a_norm.weight": "blocks.{i}.attn.query_norm.weight",
    "blk.{i}.attn_q_b.weight": TensorRow(("blocks.{i}.attn.query_up.weight",), mla_query),
    "blk.{i}.attn_kv_a_mqa.weight": TensorRow(("blocks.{i}.attn.kv_down.weight",), mla_key),
    "blk.{i}.attn_kv_a_norm.weight": "blocks.{i}.attn.kv_norm.weight",
    "blk.{i}.attn_k_b.weight": TensorRow(  # (n_head, kv_latent, head_dim), which queries are multiplied by
        ("blocks.{i}.attn.key_up.weight",), lambda x, a: x.unflatten(0, (a.n_head, a.head_dim)).mT
    ),
    "blk.{i}.attn_v_b.weight": TensorRow(
        ("blocks.{i}.attn.value_up.weight",), lambda x, a: x.unflatten(0, (a.n_head, a.head_dim))
    ),
}

# ---- metadata ----
# fmt: off


def _each(values: list[int]) -> int | list[int]:
    """One number where all layers have the same."""
    return values[0] if len(set(values)) == 1 else values


def _common(s: Structure) -> Metadata:
    """What every architecture has."""
    # Of layers of experts, that of the first dense one, if there is one.
    widths = [(s.dense[0] if s.dense and isinstance(x.ffn, Experts) else x.ffn).width for x in s.layers]
    norm = "layer_norm_epsilon" if s.norm == "layer" else "layer_norm_rms_epsilon"
    return {
        "context_length": s.n_positions or s.block_size, "embedding_length": s.width, "block_count": len(s.layers),
        "feed_forward_length": _each(widths),
        "attention.head_count": _each([layer.attn.n_head for layer in s.layers]),
        "attention.head_count_kv": _each([layer.attn.n_kv_heads for layer in s.layers]),
        f"attention.{norm}": s.eps,
    }


def _rotating(s: Structure) -> Metadata:
    width = s.first.attn.head_dim
    return {
        "attention.key_length": width, "attention.value_length": width,
        "rope.dimension_count": s.first.attn.rope_dim or width, "rope.freq_base": s.rope_base,
    }


def _experts(m: Experts) -> Metadata:
    return {"expert_count": m.n, "expert_used_count": m.n_chosen, "expert_feed_forward_length": m.width}


def _scores(m: Experts) -> Metadata:
    return {
        "expert_gating_func": GATING[m.scoring], "expert_weights_norm": m.renormalized, "expert_weights_scale": 1.0,
    }


def _mixtral(s: Structure) -> Metadata:
    return {**_rotating(s), **_experts(s.first.ffn)}


def _phimoe(s: Structure) -> Metadata:
    m = s.first.ffn
    return {
        **_rotating(s), "feed_forward_length": m.width, "expert_count": m.n, "expert_used_count": m.n_chosen,
        "expert_weights_scale": 1.0,
    }


def _granite(s: Structure) -> Metadata:
    return {
        **_mixtral(s), "expert_shared_feed_forward_length": s.first.ffn.shared_width,
        "attention.scale": s.first.attn.head_dim**-0.5,
        "embedding_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0,
    }


def _sigmoid_experts(s: Structure) -> Metadata:
    """Experts in the manner of DeepSeek-V3, behind so many dense layers."""
    if not s.mixtures:
        return {"leading_dense_block_count": len(s.layers), "expert_feed_forward_length": 1, "expert_shared_count": 0}
    m = s.mixtures[0]
    return {
        **_experts(m), "leading_dense_block_count": len(s.dense),
        "expert_shared_count": m.shared_width // m.width, **_scores(m),
        "expert_group_count": 1, "expert_group_used_count": 1,
    }


def _everywhere_windowed(s: Structure) -> Metadata:
    """A sliding window in every layer that is never left, for graphs that insist on one."""
    width = s.first.attn.head_dim
    return {
        **_rotating(s), "attention.key_length_swa": width, "attention.value_length_swa": width,
        "rope.dimension_count_swa": width, "rope.freq_base_swa": s.rope_base,
        "attention.sliding_window": 1 << 24, "attention.sliding_window_pattern": [True] * len(s.layers),
    }


def _step35(s: Structure) -> Metadata:
    if not s.mixtures:
        return {**_everywhere_windowed(s), "expert_feed_forward_length": 0}
    m = s.mixtures[0]
    return {
        **_everywhere_windowed(s), **_experts(m), "expert_shared_feed_forward_length": m.shared_width, **_scores(m),
    }


def _deepseek2(s: Structure) -> Metadata:
    a = s.first.attn
    return {
        **_sigmoid_experts(s),
        "attention.head_count_kv": 1,  # the latent, which all heads read
        "attention.q_lora_rank": a.q_latent, "attention.kv_lora_rank": a.kv_latent,
        "attention.key_length": a.kv_latent + a.rope_dim, "attention.value_length": a.kv_latent,
        "attention.key_length_mla": a.head_dim + a.rope_dim, "attention.value_length_mla": a.head_dim,
        "rope.dimension_count": a.rope_dim, "rope.freq_base": s.rope_base,
    }


# ---- what cannot be said in a table: tensors that an architecture asks for ----


@each_layer
def _half_open_gates(layer: Layer, x: Tensors) -> tuple[Layer, Tensors]:
    """spark2.5 multiplies every head by the sigmoid of a gate: half of twice as much."""
    gate = x["attn.query.weight"].new_zeros(layer.attn.n_head, x["attn.query.weight"].shape[1])
    return layer, x | {"attn.proj.weight": 2 * x["attn.proj.weight"], "attn.gate.weight": gate}


def _unlike_lite(graph: Graph) -> Graph:
    """deepseek2 takes a model of 26 or 27 layers for DeepSeek-V2-Lite, which does not compress queries; 28 are none."""
    s = graph.s
    is_lite = len(s.layers) in (26, 27) or (len(s.layers) == 48 and s.vocab_size == 128_256)
    if not is_lite or not s.first.attn.q_latent:
        return graph
    return deepen(graph, 28 if len(s.layers) < 28 else 49)


STARCODER2 = dict(accepts=Accepts(**CLASSIC, dense=[("gelu", False)]), names=BASIC, metadata=_rotating,
                  converted_from=BY_NAME["Starcoder2ForCausalLM"])
ARCHITECTURES = (
    Architecture(
        "gpt2", Accepts(**CLASSIC, positions=("table",), dense=[("gelu", False)]), FUSED,
        (zero_biases, fold_head_bias, mirror, plain_gelu, align_widths, pad_positions), lambda s: {},
        converted_from=BY_NAME["GPT2LMHeadModel"],
        converted_if=lambda s: s.first.ffn.width == 4 * s.width,  # it ignores n_inner
    ),
    Architecture("starcoder2", steps=(zero_biases, fold_head_bias, plain_gelu, align_widths), **STARCODER2),
    Architecture(
        "arcee", Accepts(attn_bias=EITHER, dense=[("relu2", False)]), NEIGHBOURS, (centre,), _rotating,
        converted_from=BY_NAME["ArceeForCausalLM"],
    ),
    Architecture(
        "llama", Accepts(attn_bias=EITHER, out_bias=EITHER, dense=[SWIGLU], dense_bias=EITHER), NEIGHBOURS,
        (centre, gated_silu), _rotating, converted_from=BY_NAME["LlamaForCausalLM"],
    ),
    Architecture(
        "llama",
        Accepts(attn_bias=EITHER, out_bias=EITHER, experts=[SWIGLU, ("silu", False)], renormalized=(True,)),
        NEIGHBOURS, (centre, squares_as_gates, plain_silu), _mixtral, converted_from=BY_NAME["MixtralForCausalLM"],
    ),
    Architecture(
        "jais2", Accepts(**CLASSIC, dense=[("relu2", False)]), BASIC, (zero_biases, fold_head_bias), _rotating,
        converted_from=BY_NAME["Jais2ForCausalLM"],
    ),
    Architecture(
        "qwen3", Accepts(qk_norm=(True,), attn_bias=EITHER, dense=[SWIGLU]), BASIC,
        (centre, squares_as_gates, bias_as_head), _rotating, converted_from=BY_NAME["Qwen3ForCausalLM"],
    ),
    Architecture(
        "qwen3moe", Accepts(qk_norm=(True,), attn_bias=EITHER, experts=[SWIGLU], renormalized=(True,)), BASIC,
        (centre, squares_as_gates, bias_as_head), _mixtral, converted_from=BY_NAME["Qwen3MoeForCausalLM"],
    ),
    Architecture(
        "granitemoe",
        Accepts(attn_bias=EITHER, out_bias=EITHER, experts=[SWIGLU], shared_expert=(True,), renormalized=(True,)),
        NEIGHBOURS, (centre, squares_as_gates), _granite, converted_from=BY_NAME["GraniteMoeSharedForCausalLM"],
    ),
    Architecture(
        "glm4moe",
        Accepts(
            qk_norm=EITHER, attn_bias=EITHER, dense=[SWIGLU], experts=[SWIGLU], scoring=("softmax", "sigmoid"),
            shared_expert=(True,), selection_bias=(True,), layers="dense first",
        ),
        POST_NORM, (centre, squares_as_gates, some_shared_expert, some_selection_bias, bias_as_head),
        lambda s: _rotating(s) | _sigmoid_experts(s), converted_from=BY_NAME["Glm4MoeForCausalLM"],
    ),
    Architecture(
        "deepseek2",
        Accepts(
            attention=("latent",), dense=[SWIGLU], experts=[SWIGLU], scoring=("softmax", "sigmoid"),
            shared_expert=(True,), selection_bias=EITHER, layers="dense first",
        ),
        LATENT, (centre, squares_as_gates, some_shared_expert, align_widths, _unlike_lite), _deepseek2,
        converted_from=DEEPSEEK_FOR_CONVERTER,
        converted_if=lambda s: bool(s.first.attn.q_latent),  # it leaves out a rank of 0, and llama.cpp misses it
    ),
    Architecture(
        "spark2_5", Accepts(attn_bias=EITHER, dense=[("gelu", True)]),
        {**BASIC, "blk.{i}.attn_gate.weight": "blocks.{i}.attn.gate.weight"},
        (centre, bias_as_head, _half_open_gates), _everywhere_windowed,
    ),
    Architecture(
        "deci",
        Accepts(attn_bias=EITHER, out_bias=EITHER, dense=[SWIGLU], dense_bias=EITHER, layers="any heads and widths"),
        NEIGHBOURS, (centre, align_heads, gated_silu), _rotating,
    ),
    Architecture(
        "step35",
        Accepts(
            qk_norm=EITHER, attn_bias=EITHER, dense=[SWIGLU, ("silu", False)], experts=[SWIGLU, ("silu", False)],
            scoring=("softmax", "sigmoid"), shared_expert=(True,), selection_bias=EITHER, tied=(False,), layers="any",
        ),
        BASIC,
        (centre, untie, align_heads, squares_as_gates, plain_silu, some_shared_expert, align_widths, bias_as_head),
        _step35,
    ),
    Architecture("starcoder2", steps=(zero_biases, fold_head_bias, mirror, plain_gelu, align_widths), **STARCODER2),
    Architecture(
        "phimoe",
        Accepts(
            norm_bias=(True,), attn_bias=(True,), out_bias=(True,), square_heads=(True,), experts=[SWIGLU],
            renormalized=(True,), head_bias=(True,), tied=(False,),
        ),
        {**BASIC, "output.bias": "head.bias"},
        (zero_biases, centre, squares_as_gates, all_as_experts, untie, some_head_bias), _phimoe,
    ),
)
# fmt: on
