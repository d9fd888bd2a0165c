"""The classes of Hugging Face `transformers` that models are exported as: what each computes, its names, its config.

To add one: an entry in HF_CLASSES, which needs what it accepts, a table of names, and the content of its config.json.
tests/export/test_tables.py tells what of it is missing, test_architectures.py whether it is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from custom_llm.export.graph.graph import Attention, Graph, Structure, join
from custom_llm.export.graph.rewrites.activations import squares_as_relu_gates
from custom_llm.export.graph.rewrites.experts import some_selection_bias, some_shared_expert
from custom_llm.export.graph.rewrites.norms import bias_as_head, centre, fold_head_bias, mirror, zero_biases
from custom_llm.export.graph.target import ANY_WINDOW, CLASSIC, EITHER, MAYBE_BIASED, Accepts, Target, choose
from custom_llm.export.graph.tensor_names import TensorRow
from custom_llm.export.huggingface.configs import (
    ACTIVATIONS,
    Config,
    read_arcee,
    read_deepseek_v2,
    read_deepseek_v3,
    read_gemma2,
    read_gemma3,
    read_glm4_moe,
    read_gpt2,
    read_granite,
    read_jais2,
    read_llama,
    read_mistral,
    read_mixtral,
    read_neox,
    read_olmo2,
    read_phi3,
    read_qwen2,
    read_qwen3,
    read_qwen3_moe,
    read_starcoder2,
    write_common,
    write_deepseek,
    write_deepseek_v2,
    write_gemma,
    write_gemma2,
    write_glm4_moe,
    write_gpt2,
    write_granite,
    write_llama,
    write_mixtral,
    write_neox,
    write_phi3,
    write_qwen3_moe,
    write_starcoder2,
    write_windowed,
)

ANY_GATED = [(name, True) for name in ACTIVATIONS]
ANY_PLAIN = [(name, False) for name in ACTIVATIONS]


@dataclass(frozen=True)
class HFClass(Target):
    """A stock class."""

    model_type: str
    config: Callable[[Structure], Config]  # the further content of config.json
    read: Callable[[Config], Structure]  # the structure that such a content describes; ValueError where it is unknown


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
NEOX = {
    "gpt_neox.embed_in.weight": "token_embedding.weight",
    "gpt_neox.layers.{i}.input_layernorm.*": "blocks.{i}.ln1.*",
    "gpt_neox.layers.{i}.attention.query_key_value.*": TensorRow(
        QKV,
        # queries of all heads, keys, values → query, key and value of each head one above the other
        lambda x, a: x.unflatten(0, (3, a.n_head, a.head_dim)).transpose(0, 1).flatten(0, 2),
    ),
    "gpt_neox.layers.{i}.attention.dense.*": "blocks.{i}.attn.proj.*",
    "gpt_neox.layers.{i}.post_attention_layernorm.*": "blocks.{i}.ln2.*",
    "gpt_neox.layers.{i}.mlp.dense_h_to_4h.*": "blocks.{i}.ffn.up.*",
    "gpt_neox.layers.{i}.mlp.dense_4h_to_h.*": "blocks.{i}.ffn.down.*",
    "gpt_neox.final_layer_norm.*": "ln_f.*",
    "embed_out.weight": "head.weight",
}
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
PHI3 = {
    **{theirs: row for theirs, row in LLAMA.items() if not re.search(r"\.(mlp|[qkv]_proj|[qk]_norm)\.", theirs)},
    "model.layers.{i}.self_attn.qkv_proj.weight": TensorRow(tuple(name.replace("*", "weight") for name in QKV)),
    "model.layers.{i}.mlp.gate_up_proj.weight": TensorRow(("blocks.{i}.ffn.gate.weight", "blocks.{i}.ffn.up.weight")),
    "model.layers.{i}.mlp.down_proj.weight": "blocks.{i}.ffn.down.weight",
}
_NORMED_AFTER = {
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.ln1_after.weight",
    "model.layers.{i}.post_feedforward_layernorm.weight": "blocks.{i}.ln2_after.weight",
}
_WITHOUT_NORMS = {theirs: row for theirs, row in LLAMA.items() if "layernorm" not in theirs}
OLMO2 = {**_WITHOUT_NORMS, **_NORMED_AFTER}
# Gemma's norms multiply by 1 more than their weights.
GEMMA = {
    theirs: TensorRow((row,), shift=-1.0) if "norm" in theirs else row
    for theirs, row in {
        **_WITHOUT_NORMS, **_NORMED_AFTER,
        "model.norm.weight": "ln_f.weight",
        "model.layers.{i}.input_layernorm.weight": "blocks.{i}.ln1.weight",
        "model.layers.{i}.pre_feedforward_layernorm.weight": "blocks.{i}.ln2.weight",
    }.items()
    if theirs != "model.norm.*"
}  # fmt: skip
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

# fmt: off


def _lean_bias(graph: Graph) -> Graph:
    """The bias of attention's output, where classes have none, as a head; only for models with experts."""
    return bias_as_head(graph) if graph.s.mixtures else graph


DEEPSEEK_EXPERTS = dict(
    dense=ANY_GATED, experts=ANY_GATED, scoring=("sigmoid",), shared_expert=(True,), selection_bias=(True,),
    routed_scale=EITHER, groups=EITHER, layers="dense first",
)
ROTATES = dict(rope_scaling=(None, "linear", "llama3", "yarn"))
PARTLY = dict(**ROTATES, partial_rotation=EITHER)
LATENT_ROTATES = dict(rope_scaling=(None, "yarn"), attn_scaled=EITHER)
GEMMAS = dict(
    **MAYBE_BIASED, norm_place=("both",), embedding_scaled=(True,), attn_scaled=EITHER, logit_softcap=EITHER,
    dense=ANY_GATED,
)
HF_CLASSES = (
    HFClass(
        "GPT2LMHeadModel", Accepts(**CLASSIC, positions=("table",), shared_keys=("mha",), dense=ANY_PLAIN), GPT2,
        (zero_biases, fold_head_bias, mirror), "gpt2", write_gpt2, read_gpt2,
    ),
    HFClass(
        "GPTBigCodeForCausalLM", Accepts(**CLASSIC, positions=("table",), shared_keys=("mqa",), dense=ANY_PLAIN),
        BIGCODE, (zero_biases, fold_head_bias), "gpt_bigcode", 
        lambda s: {**write_gpt2(s), "multi_query": True}, read_gpt2,
    ),
    HFClass(
        "GPTNeoXForCausalLM",
        Accepts(**CLASSIC, **PARTLY, parallel=(True,), shared_keys=("mha",), dense=ANY_PLAIN), NEOX,
        (zero_biases, fold_head_bias), "gpt_neox", write_neox, read_neox,
    ),
    HFClass(
        "LlamaForCausalLM", Accepts(**MAYBE_BIASED, **ROTATES, dense=ANY_GATED, dense_bias=EITHER), LLAMA,
        (centre,), "llama", write_llama, read_llama,
    ),
    HFClass(
        "MistralForCausalLM", Accepts(**ROTATES, window=("no", "every layer"), dense=ANY_GATED), LLAMA,
        (centre,), "mistral", write_windowed, read_mistral,
    ),
    HFClass(
        "Qwen2ForCausalLM", Accepts(**ROTATES, attn_bias=(True,), dense=ANY_GATED), LLAMA,
        (centre,), "qwen2", lambda s: {**write_common(s), "use_sliding_window": False}, read_qwen2,
    ),
    HFClass(
        "Qwen3ForCausalLM", Accepts(**MAYBE_BIASED, **ROTATES, qk_norm=(True,), dense=ANY_GATED), LLAMA,
        (centre,), "qwen3", lambda s: {**write_common(s), "use_sliding_window": False}, read_qwen3,
    ),
    HFClass(
        "Phi3ForCausalLM", Accepts(**PARTLY, square_heads=(True,), dense=ANY_GATED), PHI3,
        (centre,), "phi3", write_phi3, read_phi3,
    ),
    HFClass(
        "Olmo2ForCausalLM",
        Accepts(
            **MAYBE_BIASED, **ROTATES, qk_norm=(True,), qk_norm_over=("all",), norm_place=("after",),
            square_heads=(True,), dense=ANY_GATED,
        ),
        OLMO2, (), "olmo2", lambda s: {k: v for k, v in write_common(s).items() if k != "head_dim"}, read_olmo2,
    ),
    HFClass(
        "Gemma2ForCausalLM",
        Accepts(**GEMMAS, **ROTATES, attn_softcap=EITHER, window=ANY_WINDOW), GEMMA,
        (), "gemma2", write_gemma2, read_gemma2,
    ),
    HFClass(
        "Gemma3ForCausalLM", Accepts(**GEMMAS, **ROTATES, local_base=EITHER, qk_norm=(True,), window=ANY_WINDOW), GEMMA,
        (), "gemma3_text", write_gemma, read_gemma3,
    ),
    HFClass(
        "ArceeForCausalLM", Accepts(**MAYBE_BIASED, **ROTATES, dense=ANY_PLAIN, dense_bias=EITHER), LLAMA,
        (), "arcee", write_llama, read_arcee,
    ),
    HFClass(
        "Starcoder2ForCausalLM",
        Accepts(**CLASSIC, **ROTATES, dense=[kind for kind in ANY_PLAIN if kind[0] != "relu2"]),
        STARCODER2, (zero_biases, fold_head_bias, mirror), "starcoder2", write_starcoder2, read_starcoder2,
    ),
    HFClass(
        "Jais2ForCausalLM", Accepts(**CLASSIC, **ROTATES, dense=ANY_PLAIN), LLAMA,
        (zero_biases, fold_head_bias), "jais2", lambda s: {**write_llama(s), "layer_norm_eps": s.eps}, read_jais2,
    ),
    HFClass(
        "MixtralForCausalLM", Accepts(**ROTATES, experts=ANY_GATED, renormalized=(True,)), MIXTRAL,
        (centre, squares_as_relu_gates), "mixtral", write_mixtral, read_mixtral,
    ),
    HFClass(
        "Qwen3MoeForCausalLM", Accepts(**MAYBE_BIASED, **ROTATES, qk_norm=(True,), experts=ANY_GATED), MOE,
        (centre, squares_as_relu_gates), "qwen3_moe", write_qwen3_moe, read_qwen3_moe,
    ),
    HFClass(
        "GraniteMoeSharedForCausalLM",
        Accepts(**MAYBE_BIASED, square_heads=(True,), experts=ANY_GATED, shared_expert=(True,), renormalized=(True,)),
        GRANITE, (centre, squares_as_relu_gates), "granitemoeshared", write_granite, read_granite,
    ),
    HFClass(
        "Glm4MoeForCausalLM", Accepts(**DEEPSEEK_EXPERTS, **ROTATES, qk_norm=EITHER, attn_bias=EITHER), MOE,
        (centre, squares_as_relu_gates, some_shared_expert, _lean_bias), "glm4_moe", write_glm4_moe, read_glm4_moe,
    ),
    HFClass(
        "DeepseekV3ForCausalLM",
        Accepts(**DEEPSEEK_EXPERTS, **MAYBE_BIASED, **LATENT_ROTATES, attention=("latent",)), DEEPSEEK_V3,
        (centre, squares_as_relu_gates, some_shared_expert, some_selection_bias), "deepseek_v3", write_deepseek,
        read_deepseek_v3,
    ),
    HFClass(
        "DeepseekV2ForCausalLM",
        Accepts(
            **MAYBE_BIASED, **LATENT_ROTATES, attention=("latent",), dense=ANY_GATED, experts=ANY_GATED,
            renormalized=(False,), routed_scale=EITHER, shared_expert=(True,), layers="dense first",
        ),
        DEEPSEEK_V3, (centre, squares_as_relu_gates, some_shared_expert), "deepseek_v2", write_deepseek_v2,
        read_deepseek_v2,
    ),
)
# fmt: on
BY_NAME = {hf_class.name: hf_class for hf_class in HF_CLASSES}
# What llama.cpp's converter reads, whose graph takes the epsilon of its metadata for latents, too.
DEEPSEEK_FOR_CONVERTER = replace(BY_NAME["DeepseekV3ForCausalLM"], names=DEEPSEEK)
