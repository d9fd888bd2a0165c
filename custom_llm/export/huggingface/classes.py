"""The classes of Hugging Face `transformers` that models are exported as: what each computes, its names, its config.

To add one: an entry in HF_CLASSES, which needs what it accepts, a table of names, and the content of its config.json.
tests/export/test_tables.py tells what of it is missing, test_architectures.py whether it is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from custom_llm.export.graph.graph import Attention, Graph, Structure, join
from custom_llm.export.graph.rewrites.activations import squares_as_relu_gates
from custom_llm.export.graph.rewrites.experts import some_selection_bias, some_shared_expert
from custom_llm.export.graph.rewrites.norms import bias_as_head, centre, fold_head_bias, mirror, zero_biases
from custom_llm.export.graph.target import CLASSIC, EITHER, MAYBE_BIASED, Accepts, Target, choose
from custom_llm.export.graph.tensor_names import TensorRow

# ours → transformers' name of an activation
ACTIVATIONS = {
    "gelu": "gelu_pytorch_tanh", "relu": "relu", "relu2": "relu2", "silu": "silu", "tanh": "tanh",
    "sigmoid": "sigmoid", "mish": "mish", "leaky_relu": "leaky_relu",
}  # fmt: skip
ANY_GATED = [(name, True) for name in ACTIVATIONS]
ANY_PLAIN = [(name, False) for name in ACTIVATIONS]


@dataclass(frozen=True)
class HFClass(Target):
    """A stock class."""

    model_type: str
    config: Callable[[Structure], dict[str, Any]]  # the further content of config.json


def in_directory(graph: Graph) -> tuple[HFClass | None, Graph]:
    """The Hugging Face class of a graph, if there is one, and the graph as its directory holds it.

    GGUF files are made from that.
    """
    return choose(HF_CLASSES, graph) or (None, graph)


# ---- layouts ----


def neighbours(x: torch.Tensor, width: int, turning: int) -> torch.Tensor:
    """The last `turning` rows of each head, `width` wide, from half-split rotation (i with i + turning/2) to pairs."""
    head = x.unflatten(0, (-1, width))
    tail = head[:, width - turning :].unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    return join([head[:, : width - turning], tail], 1).flatten(0, 1)


def mla_query(x: torch.Tensor, a: Attention) -> torch.Tensor:
    """Queries carry a rotary part in each head."""
    return neighbours(x, a.head_dim + a.rope_dim, a.rope_dim)


def mla_key(x: torch.Tensor, a: Attention) -> torch.Tensor:
    """The projection of keys and values carries one behind the latent."""
    return neighbours(x, len(x), a.rope_dim)


def _transposed(x: torch.Tensor, attn: Attention) -> torch.Tensor:
    return x.mT if x.dim() > 1 else x


# DeepseekV3ForCausalLM normalises its latents with an epsilon of 1e-6, whatever its config says. Latents smaller by
# the root of the ratio make up for it; the rotary head behind keys and values stays as it is.
LATENT_EPS = 1e-6
SMALL_QUERY = dict(scale=lambda s, a: [(LATENT_EPS / s.eps) ** 0.5] * a.q_latent)
SMALL_KEY = dict(scale=lambda s, a: [(LATENT_EPS / s.eps) ** 0.5] * a.kv_latent + [1.0] * a.rope_dim, layout=mla_key)

# ---- names ----

QKV = tuple(f"blocks.{{i}}.attn.{name}.*" for name in ("query", "key", "value"))
GPT2 = {
    "transformer.wte.weight": "token_embedding.weight",
    "transformer.wpe.weight": "position_embedding.weight",
    "transformer.h.{i}.ln_1.*": "blocks.{i}.ln1.*",
    "transformer.h.{i}.attn.c_attn.*": TensorRow(QKV, _transposed),
    "transformer.h.{i}.attn.c_proj.*": TensorRow(("blocks.{i}.attn.proj.*",), _transposed),
    "transformer.h.{i}.ln_2.*": "blocks.{i}.ln2.*",
    "transformer.h.{i}.mlp.c_fc.*": TensorRow(("blocks.{i}.ffn.up.*",), _transposed),
    "transformer.h.{i}.mlp.c_proj.*": TensorRow(("blocks.{i}.ffn.down.*",), _transposed),
    "transformer.ln_f.*": "ln_f.*",
    "lm_head.weight": "head.weight",
}
# GPT-BigCode keeps its matrices as torch.nn.Linear does.
BIGCODE = {theirs: TensorRow(row.ours) if isinstance(row, TensorRow) else row for theirs, row in GPT2.items()}
LLAMA = {
    "model.embed_tokens.weight": "token_embedding.weight",
    "model.layers.{i}.input_layernorm.*": "blocks.{i}.ln1.*",
    "model.layers.{i}.self_attn.q_proj.*": "blocks.{i}.attn.query.*",
    "model.layers.{i}.self_attn.k_proj.*": "blocks.{i}.attn.key.*",
    "model.layers.{i}.self_attn.v_proj.*": "blocks.{i}.attn.value.*",
    "model.layers.{i}.self_attn.o_proj.*": "blocks.{i}.attn.proj.*",
    "model.layers.{i}.self_attn.q_norm.weight": "blocks.{i}.attn.query_norm.weight",
    "model.layers.{i}.self_attn.k_norm.weight": "blocks.{i}.attn.key_norm.weight",
    "model.layers.{i}.post_attention_layernorm.*": "blocks.{i}.ln2.*",
    "model.layers.{i}.mlp.{part}_proj.*": "blocks.{i}.ffn.{part}.*",
    "model.norm.*": "ln_f.*",
    "lm_head.weight": "head.weight",
}
STARCODER2 = {
    **{theirs: row for theirs, row in LLAMA.items() if ".mlp." not in theirs},
    "model.layers.{i}.mlp.c_fc.*": "blocks.{i}.ffn.up.*",
    "model.layers.{i}.mlp.c_proj.*": "blocks.{i}.ffn.down.*",
}
MIXTRAL = {
    **LLAMA,
    "model.layers.{i}.block_sparse_moe.gate.weight": "blocks.{i}.ffn.router.weight",
    "model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight": "blocks.{i}.ffn.experts.gate.weight",
    "model.layers.{i}.block_sparse_moe.experts.{e}.w2.weight": "blocks.{i}.ffn.experts.down.weight",
    "model.layers.{i}.block_sparse_moe.experts.{e}.w3.weight": "blocks.{i}.ffn.experts.up.weight",
}
GRANITE = {
    **LLAMA,
    "model.layers.{i}.block_sparse_moe.router.layer.weight": "blocks.{i}.ffn.router.weight",
    "model.layers.{i}.block_sparse_moe.input_linear.weight": TensorRow(
        ("blocks.{i}.ffn.experts.gate.weight", "blocks.{i}.ffn.experts.up.weight"), dim=-2
    ),
    "model.layers.{i}.block_sparse_moe.output_linear.weight": "blocks.{i}.ffn.experts.down.weight",
    "model.layers.{i}.shared_mlp.input_linear.weight": TensorRow(
        ("blocks.{i}.ffn.shared.gate.weight", "blocks.{i}.ffn.shared.up.weight")
    ),
    "model.layers.{i}.shared_mlp.output_linear.weight": "blocks.{i}.ffn.shared.down.weight",
}
MOE = {
    **LLAMA,
    "model.layers.{i}.mlp.gate.weight": "blocks.{i}.ffn.router.weight",
    "model.layers.{i}.mlp.gate.e_score_correction_bias": "blocks.{i}.ffn.selection_bias",
    "model.layers.{i}.mlp.experts.{e}.{part}_proj.weight": "blocks.{i}.ffn.experts.{part}.weight",
    "model.layers.{i}.mlp.shared_experts.{part}_proj.weight": "blocks.{i}.ffn.shared.{part}.weight",
}
DEEPSEEK = {
    **{theirs: row for theirs, row in MOE.items() if not re.search(r"\.([qk]_norm|[kv]_proj)\.", theirs)},
    "model.layers.{i}.self_attn.q_proj.*": TensorRow(("blocks.{i}.attn.query.*",), mla_query),
    "model.layers.{i}.self_attn.q_a_proj.*": "blocks.{i}.attn.query_down.*",
    "model.layers.{i}.self_attn.q_a_layernorm.weight": "blocks.{i}.attn.query_norm.weight",
    "model.layers.{i}.self_attn.q_b_proj.weight": TensorRow(("blocks.{i}.attn.query_up.weight",), mla_query),
    "model.layers.{i}.self_attn.kv_a_proj_with_mqa.*": TensorRow(("blocks.{i}.attn.kv_down.*",), mla_key),
    "model.layers.{i}.self_attn.kv_a_layernorm.weight": "blocks.{i}.attn.kv_norm.weight",
    "model.layers.{i}.self_attn.kv_b_proj.weight": TensorRow(
        ("blocks.{i}.attn.key_up.weight", "blocks.{i}.attn.value_up.weight"),
        # keys of all heads above values of all heads → keys and values of each head one above the other
        lambda x, a: x.unflatten(0, (2, a.n_head, a.head_dim)).transpose(0, 1).flatten(0, 2),
    ),
}
DEEPSEEK_V3 = {
    **DEEPSEEK,
    "model.layers.{i}.self_attn.q_a_proj.*": TensorRow(("blocks.{i}.attn.query_down.*",), **SMALL_QUERY),
    "model.layers.{i}.self_attn.kv_a_proj_with_mqa.*": TensorRow(("blocks.{i}.attn.kv_down.*",), **SMALL_KEY),
}

# ---- config.json ----
# fmt: off


def _gpt2(s: Structure) -> dict[str, Any]:
    ffn = s.first.ffn
    return {
        "n_positions": s.n_positions,
        "n_ctx": s.n_positions,  # gone from recent GPT2Config, but llama.cpp's converter reads it
        "n_embd": s.width, "n_layer": len(s.layers), "n_head": s.first.attn.n_head, "n_inner": ffn.width,
        "activation_function": {"gelu": "gelu_new"}.get(ffn.activation, ACTIVATIONS[ffn.activation]),
        "resid_pdrop": s.dropout, "embd_pdrop": 0.0, "attn_pdrop": s.dropout, "layer_norm_epsilon": s.eps,
    }


def _common(s: Structure) -> dict[str, Any]:
    """What the classes in the manner of Llama have in common."""
    a = s.first.attn
    ffn = s.dense[0] if s.dense else s.first.ffn
    # transformers' product of all experts at once takes rows of whole 16 bytes only, 8 values in bfloat16.
    one_by_one = s.mixtures and (s.width % 8 or s.mixtures[0].width % 8)
    return {
        "hidden_size": s.width, "num_hidden_layers": len(s.layers),
        "num_attention_heads": a.n_head, "num_key_value_heads": a.n_kv_heads, "head_dim": a.head_dim,
        "intermediate_size": ffn.width, "hidden_act": ACTIVATIONS[ffn.activation],
        "max_position_embeddings": s.block_size, "rms_norm_eps": s.eps,
        "rope_theta": s.rope_base, "rope_parameters": {"rope_type": "default", "rope_theta": s.rope_base},
        "attention_bias": a.bias, "attention_dropout": s.dropout,
        **({"experts_implementation": "eager"} if one_by_one else {}),
    }


def _llama(s: Structure) -> dict[str, Any]:
    return {**_common(s), "mlp_bias": s.first.ffn.bias}


def _starcoder2(s: Structure) -> dict[str, Any]:
    return {
        **_common(s), "norm_epsilon": s.eps, "use_bias": True, "sliding_window": None,
        "residual_dropout": s.dropout, "embedding_dropout": 0.0,
    }


def _mixtral(s: Structure) -> dict[str, Any]:
    m = s.first.ffn
    return {
        **_common(s), "num_local_experts": m.n, "num_experts_per_tok": m.n_chosen, "sliding_window": None,
    }


def _granite(s: Structure) -> dict[str, Any]:
    return {
        **_mixtral(s),
        "shared_intermediate_size": s.first.ffn.shared_width, "attention_multiplier": s.first.attn.head_dim**-0.5,
        "embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0,
    }


def _qwen3_moe(s: Structure) -> dict[str, Any]:
    m = s.first.ffn
    return {
        **_common(s), "num_experts": m.n, "num_experts_per_tok": m.n_chosen, "moe_intermediate_size": m.width,
        "norm_topk_prob": m.renormalized, "decoder_sparse_step": 1, "mlp_only_layers": [],
    }


def _deepseek_experts(s: Structure) -> dict[str, Any]:
    """Experts in the manner of DeepSeek-V3, behind so many dense layers."""
    if not s.mixtures:
        none = ("n_routed_experts", "num_experts_per_tok", "n_shared_experts", "n_group", "topk_group")
        return {"first_k_dense_replace": len(s.dense), "moe_intermediate_size": 1, **dict.fromkeys(none, 0)}
    m = s.mixtures[0]
    return {
        "first_k_dense_replace": len(s.dense), "n_routed_experts": m.n, "num_experts_per_tok": m.n_chosen,
        "moe_intermediate_size": m.width, "n_shared_experts": m.shared_width // m.width,
        "norm_topk_prob": m.renormalized, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1,
        "topk_method": "noaux_tc", "scoring_func": m.scoring,
    }


def _glm4_moe(s: Structure) -> dict[str, Any]:
    return {
        **_common(s), **_deepseek_experts(s), "use_qk_norm": s.first.attn.qk_norm, "partial_rotary_factor": 1.0,
        "num_nextn_predict_layers": 0,  # not in the class, but llama.cpp's converter takes 1 without it
    }


def _deepseek(s: Structure) -> dict[str, Any]:
    a = s.first.attn
    return {
        **_common(s), **_deepseek_experts(s),
        "head_dim": a.rope_dim, "q_lora_rank": a.q_latent or None, "kv_lora_rank": a.kv_latent,
        "qk_nope_head_dim": a.head_dim, "qk_rope_head_dim": a.rope_dim, "v_head_dim": a.head_dim,
        "rope_interleave": True,
    }


def _lean_bias(graph: Graph) -> Graph:
    """The bias of attention's output, where classes have none, as a head; only for models with experts."""
    return bias_as_head(graph) if graph.s.mixtures else graph


DEEPSEEK_EXPERTS = dict(
    dense=ANY_GATED, experts=ANY_GATED, scoring=("sigmoid",), shared_expert=(True,), selection_bias=(True,),
    layers="dense first",
)
HF_CLASSES = (
    HFClass(
        "GPT2LMHeadModel", Accepts(**CLASSIC, positions=("table",), shared_keys=("mha",), dense=ANY_PLAIN), GPT2,
        (zero_biases, fold_head_bias, mirror), "gpt2", _gpt2,
    ),
    HFClass(
        "GPTBigCodeForCausalLM", Accepts(**CLASSIC, positions=("table",), shared_keys=("mqa",), dense=ANY_PLAIN),
        BIGCODE, (zero_biases, fold_head_bias), "gpt_bigcode", lambda s: {**_gpt2(s), "multi_query": True},
    ),
    HFClass(
        "LlamaForCausalLM", Accepts(**MAYBE_BIASED, dense=ANY_GATED, dense_bias=EITHER), LLAMA,
        (centre,), "llama", _llama,
    ),
    HFClass(
        "Qwen3ForCausalLM", Accepts(**MAYBE_BIASED, qk_norm=(True,), dense=ANY_GATED), LLAMA,
        (centre,), "qwen3", lambda s: {**_common(s), "use_sliding_window": False},
    ),
    HFClass(
        "ArceeForCausalLM", Accepts(**MAYBE_BIASED, dense=ANY_PLAIN, dense_bias=EITHER), LLAMA,
        (), "arcee", _llama,
    ),
    HFClass(
        "Starcoder2ForCausalLM", Accepts(**CLASSIC, dense=[kind for kind in ANY_PLAIN if kind[0] != "relu2"]),
        STARCODER2, (zero_biases, fold_head_bias, mirror), "starcoder2", _starcoder2,
    ),
    HFClass(
        "Jais2ForCausalLM", Accepts(**CLASSIC, dense=ANY_PLAIN), LLAMA,
        (zero_biases, fold_head_bias), "jais2", lambda s: {**_llama(s), "layer_norm_eps": s.eps},
    ),
    HFClass(
        "MixtralForCausalLM", Accepts(experts=ANY_GATED, renormalized=(True,)), MIXTRAL,
        (centre, squares_as_relu_gates), "mixtral", _mixtral,
    ),
    HFClass(
        "Qwen3MoeForCausalLM", Accepts(qk_norm=(True,), experts=ANY_GATED), MOE,
        (centre, squares_as_relu_gates), "qwen3_moe", _qwen3_moe,
    ),
    HFClass(
        "GraniteMoeSharedForCausalLM",
        Accepts(**MAYBE_BIASED, square_heads=(True,), experts=ANY_GATED, shared_expert=(True,), renormalized=(True,)),
        GRANITE, (centre, squares_as_relu_gates), "granitemoeshared", _granite,
    ),
    HFClass(
        "Glm4MoeForCausalLM", Accepts(**DEEPSEEK_EXPERTS, qk_norm=EITHER, attn_bias=EITHER), MOE,
        (centre, squares_as_relu_gates, some_shared_expert, _lean_bias), "glm4_moe", _glm4_moe,
    ),
    HFClass(
        "DeepseekV3ForCausalLM", Accepts(**DEEPSEEK_EXPERTS, **MAYBE_BIASED, attention=("latent",)), DEEPSEEK_V3,
        (centre, squares_as_relu_gates, some_shared_expert, some_selection_bias), "deepseek_v3", _deepseek,
    ),
)
# fmt: on
BY_NAME = {hf_class.name: hf_class for hf_class in HF_CLASSES}
# What llama.cpp's converter reads, whose graph takes the epsilon of its metadata for latents, too.
DEEPSEEK_FOR_CONVERTER = replace(BY_NAME["DeepseekV3ForCausalLM"], names=DEEPSEEK)
