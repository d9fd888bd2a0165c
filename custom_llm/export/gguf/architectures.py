"""The graphs of llama.cpp that models are exported as: what each computes, its names, its metadata.

To add one: an entry in ARCHITECTURES, which needs what it accepts, a table of names and its metadata. Only a tensor of
a new kind needs more: its shape in `graph.check`. tests/export/test_tables.py tells what is missing,
test_architectures.py whether it is right.
"""

from __future__ import annotations

import math
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
from custom_llm.export.graph.target import ANY_WINDOW, CLASSIC, EITHER, SWIGLU, Accepts, Target, choose
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
from custom_llm.export.huggingface.configs import mscale_all_dim
from custom_llm.model.layers import Rope

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
        return (
            self.converted_from is not None
            and _is_plain(s)
            and self.converted_if(s)
            and self.converted_from.accepts.fits(s)
        )

    def tensors(self, graph: Graph) -> Tensors:
        """A prepared graph's tensors under GGUF's names."""
        own = rename(graph.tensors, graph.s, self.names)
        return {**own, ROPE_FREQS: frequency_factors(graph.s)} if graph.s.rope_scaling == "llama3" else own

    def all_metadata(self, s: Structure) -> Iterator[tuple[str, Any]]:
        """Every key with its value."""
        for key, value in {**_common(s), **self.metadata(s)}.items():
            if value is not None:
                yield f"{self.name}.{key}", value


def choose_architecture(graph: Graph) -> tuple[Architecture, Graph] | None:
    """The first architecture that computes what a graph computes, and the graph as it does, or None."""
    return choose(ARCHITECTURES, drop_blank_biases(graph))


def _is_plain(s: Structure) -> bool:
    """Whether it has nothing that the converter may say otherwise."""
    return s.rope_scaling is None and s.first.attn.rotary_dim is None and s.first.attn.window is None


ROPE_FREQS = "rope_freqs.weight"


def frequency_factors(s: Structure) -> torch.Tensor:
    """By what llama3 divides how fast each pair turns, (width/2,): llama.cpp reads them from a tensor."""
    a = s.first.attn
    width = a.rotary_dim or a.head_dim
    return (Rope(s.rope_base).frequencies(width) / s.rope.frequencies(width)).float()


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
UNPOSITIONED = {theirs: ours for theirs, ours in FUSED.items() if "position" not in theirs}
FUSED_GATE = {
    **{theirs: ours for theirs, ours in UNPOSITIONED.items() if ".ffn_{part}." not in theirs},
    "blk.{i}.ffn_up.weight": TensorRow(("blocks.{i}.ffn.gate.weight", "blocks.{i}.ffn.up.weight")),
    "blk.{i}.ffn_down.weight": "blocks.{i}.ffn.down.weight",
}
NORMED_AFTER = {
    **BASIC,
    "blk.{i}.post_attention_norm.weight": "blocks.{i}.ln1_after.weight",
    "blk.{i}.post_ffw_norm.weight": "blocks.{i}.ln2_after.weight",
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
    a = s.first.attn
    return {
        "attention.key_length": a.head_dim, "attention.value_length": a.head_dim,
        "rope.dimension_count": a.rope_dim or a.rotary_dim or a.head_dim, "rope.freq_base": s.rope_base, **_scaling(s),
    }


def _scaling(s: Structure) -> Metadata:
    """How rotations are stretched; llama3's way is a tensor."""
    if s.rope_scaling not in ("linear", "yarn"):
        return {}
    scaling = {"rope.scaling.type": s.rope_scaling, "rope.scaling.factor": s.rope_factor}
    if s.rope_scaling == "yarn":
        usual = 1 + 0.1 * math.log(s.rope_factor)  # which llama.cpp multiplies by anyway
        scaling["rope.scaling.original_context_length"] = s.rope_original
        if s.rope.gain != usual and not s.first.attn.is_latent:  # deepseek2 has its own, see there
            scaling["rope.scaling.attn_factor"] = s.rope.gain / usual
    return scaling


def _neox(s: Structure) -> Metadata:
    return {**_rotating(s), "use_parallel_residual": s.parallel}


def _windows(s: Structure) -> Metadata:
    """Sliding windows, where there are any, and the base of rotations in them."""
    windows = [layer.attn.window for layer in s.layers]
    if not any(windows):
        return {}
    return {
        "attention.sliding_window": max(w for w in windows if w is not None),
        "attention.sliding_window_pattern": [w is not None for w in windows],
        "rope.freq_base_swa": s.rope_base if s.rope_base_local is None else s.rope_base_local,
    }


def _gemma(s: Structure) -> Metadata:
    return {
        **_rotating(s), **_windows(s), "final_logit_softcapping": s.logit_softcap,
        "attn_logit_softcapping": s.first.attn.softcap,
    }


def _experts(m: Experts) -> Metadata:
    return {"expert_count": m.n, "expert_used_count": m.n_chosen, "expert_feed_forward_length": m.width}


def _scores(m: Experts) -> Metadata:
    return {
        "expert_gating_func": GATING[m.scoring], "expert_weights_norm": m.renormalized,
        "expert_weights_scale": m.routed_scale,
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
        "expert_group_count": m.n_group, "expert_group_used_count": m.topk_group,
    }


def _everywhere_windowed(s: Structure) -> Metadata:
    """For graphs that insist on sliding windows: where there are none, one in every layer that is never left."""
    width = s.first.attn.head_dim
    never_left = {
        "attention.sliding_window": 1 << 24, "attention.sliding_window_pattern": [True] * len(s.layers),
        "rope.freq_base_swa": s.rope_base,
    }
    return {
        **_rotating(s), "attention.key_length_swa": width, "attention.value_length_swa": width,
        "rope.dimension_count_swa": width, **(_windows(s) or never_left),
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
        "rope.dimension_count": a.rope_dim, "rope.freq_base": s.rope_base, **_scaling(s),
        **({"rope.scaling.yarn_log_multiplier": 0.1 * mscale_all_dim(s)} if a.scale is not None else {}),
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


ANY_SCALING = (None, "linear", "llama3", "yarn")
STRETCHED = dict(rope_scaling=(None, "linear", "yarn"))
STARCODER2 = dict(
    accepts=Accepts(**CLASSIC, **STRETCHED, partial_rotation=EITHER, dense=[("gelu", False)]), names=BASIC,
    metadata=_rotating, converted_from=BY_NAME["Starcoder2ForCausalLM"],
)
ARCHITECTURES = (
    Architecture(
        "gpt2", Accepts(**CLASSIC, positions=("table",), dense=[("gelu", False)]), FUSED,
        (zero_biases, fold_head_bias, mirror, plain_gelu, align_widths, pad_positions), lambda s: {},
        converted_from=BY_NAME["GPT2LMHeadModel"],
        converted_if=lambda s: s.first.ffn.width == 4 * s.width,  # it ignores n_inner
    ),
    Architecture("starcoder2", steps=(zero_biases, fold_head_bias, plain_gelu, align_widths), **STARCODER2),
    Architecture(
        "gptneox",
        Accepts(
            **CLASSIC, **STRETCHED, partial_rotation=EITHER, parallel=EITHER, tied=(False,),
            dense=[("gelu_erf", False), ("gelu", False)],
        ),
        UNPOSITIONED, (zero_biases, fold_head_bias, untie, plain_gelu, align_widths), _neox,
    ),
    Architecture(
        "qwen2", Accepts(**STRETCHED, attn_bias=(True,), square_heads=(True,), dense=[SWIGLU]), BASIC, (), _rotating,
    ),
    Architecture(
        "olmo2",
        Accepts(
            **STRETCHED, qk_norm=(True,), qk_norm_over=("all",), norm_place=("after",), square_heads=(True,),
            tied=(False,), dense=[SWIGLU],
        ),
        NORMED_AFTER, (untie,), _rotating,
    ),
    Architecture(
        "gemma3",
        Accepts(
            rope_scaling=(None, "linear"), qk_norm=(True,), norm_place=("both",), embedding_scaled=(True,),
            logit_softcap=EITHER, window=ANY_WINDOW, local_base=EITHER, dense=[("gelu", True)],
        ),
        NORMED_AFTER, (), _gemma,
    ),
    Architecture(
        "gemma2",
        Accepts(
            norm_place=("both",), embedding_scaled=(True,), attn_softcap=EITHER, logit_softcap=EITHER,
            window=ANY_WINDOW, dense=[("gelu", True)],
        ),
        NORMED_AFTER, (), _gemma,
    ),
    Architecture(
        "arcee", Accepts(rope_scaling=ANY_SCALING, attn_bias=EITHER, dense=[("relu2", False)]), NEIGHBOURS,
        (centre,), _rotating, converted_from=BY_NAME["ArceeForCausalLM"],
    ),
    Architecture(
        "llama",
        Accepts(rope_scaling=ANY_SCALING, attn_bias=EITHER, out_bias=EITHER, dense=[SWIGLU], dense_bias=EITHER),
        NEIGHBOURS, (centre, gated_silu), _rotating, converted_from=BY_NAME["LlamaForCausalLM"],
    ),
    Architecture(
        "phi3", Accepts(**STRETCHED, partial_rotation=EITHER, square_heads=(True,), dense=[SWIGLU]), FUSED_GATE,
        (centre, squares_as_gates), _rotating,
    ),
    Architecture(
        "llama",
        Accepts(
            rope_scaling=ANY_SCALING, attn_bias=EITHER, out_bias=EITHER, experts=[SWIGLU, ("silu", False)],
            renormalized=(True,),
        ),
        NEIGHBOURS, (centre, squares_as_gates, plain_silu), _mixtral, converted_from=BY_NAME["MixtralForCausalLM"],
    ),
    Architecture(
        "jais2", Accepts(**CLASSIC, **STRETCHED, dense=[("relu2", False)]), BASIC,
        (zero_biases, fold_head_bias), _rotating, converted_from=BY_NAME["Jais2ForCausalLM"],
    ),
    Architecture(
        "qwen3", Accepts(**STRETCHED, qk_norm=(True,), attn_bias=EITHER, dense=[SWIGLU]), BASIC,
        (centre, squares_as_gates, bias_as_head), _rotating, converted_from=BY_NAME["Qwen3ForCausalLM"],
    ),
    Architecture(
        "qwen3moe",
        Accepts(**STRETCHED, qk_norm=(True,), attn_bias=EITHER, experts=[SWIGLU], renormalized=(True,)), BASIC,
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
            routed_scale=EITHER, groups=EITHER, shared_expert=(True,), selection_bias=(True,), layers="dense first",
        ),
        POST_NORM, (centre, squares_as_gates, some_shared_expert, some_selection_bias, bias_as_head),
        lambda s: _rotating(s) | _sigmoid_experts(s), converted_from=BY_NAME["Glm4MoeForCausalLM"],
    ),
    Architecture(
        "deepseek2",
        Accepts(
            attention=("latent",), rope_scaling=(None, "yarn"), attn_scaled=EITHER, dense=[SWIGLU], experts=[SWIGLU],
            scoring=("softmax", "sigmoid"), routed_scale=EITHER, groups=EITHER, shared_expert=(True,),
            selection_bias=EITHER, layers="dense first",
        ),
        LATENT, (centre, squares_as_gates, some_shared_expert, align_widths, _unlike_lite), _deepseek2,
        converted_from=DEEPSEEK_FOR_CONVERTER,
        converted_if=lambda s: bool(s.first.attn.q_latent),  # it leaves out a rank of 0, and llama.cpp misses it
    ),
    Architecture(
        "spark2_5",
        Accepts(window=ANY_WINDOW, local_base=EITHER, attn_bias=EITHER, dense=[("gelu", True)]),
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
            window=ANY_WINDOW[:2], local_base=EITHER, qk_norm=EITHER, attn_bias=EITHER,
            dense=[SWIGLU, ("silu", False)], experts=[SWIGLU, ("silu", False)], routed_scale=EITHER,
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
