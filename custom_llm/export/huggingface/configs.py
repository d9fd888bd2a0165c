"""config.json of the classes of `transformers`, written from a structure and read as one: each pair is an inverse.

What is written depends on the structure alone. What is read has every key, since `transformers` has filled in its
defaults (`base.huggingface`); ValueError says what of it is not known here.
"""

from __future__ import annotations

import math
from typing import Any

from custom_llm.export.graph.graph import Attention, Experts, FeedForward, Layer, Structure
from custom_llm.model.layers import BETA_FAST, BETA_SLOW, HIGH_FREQ, LOW_FREQ

# ours → transformers' name of an activation
ACTIVATIONS = {
    "gelu": "gelu_pytorch_tanh", "relu": "relu", "relu2": "relu2", "silu": "silu", "tanh": "tanh",
    "sigmoid": "sigmoid", "mish": "mish", "leaky_relu": "leaky_relu", "gelu_erf": "gelu",
}  # fmt: skip
OURS = {theirs: ours for ours, theirs in ACTIVATIONS.items()}
OURS |= {"gelu_new": "gelu", "gelu_fast": "gelu", "swish": "silu", "gelu_python": "gelu_erf"}
Config = dict[str, Any]

# fmt: off


# ---- written ----


def write_gpt2(s: Structure) -> Config:
    ffn = s.first.ffn
    return {
        "n_positions": s.n_positions,
        "n_ctx": s.n_positions,  # gone from recent GPT2Config, but llama.cpp's converter reads it
        "n_embd": s.width, "n_layer": len(s.layers), "n_head": s.first.attn.n_head, "n_inner": ffn.width,
        "activation_function": {"gelu": "gelu_new"}.get(ffn.activation, ACTIVATIONS[ffn.activation]),
        "resid_pdrop": s.dropout, "embd_pdrop": 0.0, "attn_pdrop": s.dropout, "layer_norm_epsilon": s.eps,
    }


def _write_rope(s: Structure) -> Config:
    """Rotations: `rope_parameters`, and under the names of before transformers 5 as well."""
    a = s.first.attn
    rope: Config = {"rope_type": s.rope_scaling or "default", "rope_theta": s.rope_base}
    if s.rope_scaling is not None:
        rope["factor"] = s.rope_factor
    if s.rope_scaling in ("llama3", "yarn"):
        rope["original_max_position_embeddings"] = s.rope_original
    if s.rope_scaling == "llama3":
        rope |= {"low_freq_factor": LOW_FREQ, "high_freq_factor": HIGH_FREQ}
    if s.rope_scaling == "yarn":
        rope |= {"attention_factor": s.rope.gain, "beta_fast": BETA_FAST, "beta_slow": BETA_SLOW}
    share = {} if a.rotary_dim is None else {"partial_rotary_factor": a.rotary_dim / a.head_dim}
    scaling = {} if s.rope_scaling is None else {"rope_scaling": {k: v for k, v in rope.items() if k != "rope_theta"}}
    return {"rope_theta": s.rope_base, **scaling, **share, "rope_parameters": {**rope, **share}}


def write_common(s: Structure) -> Config:
    """What the classes in the manner of Llama have in common."""
    a = s.first.attn
    ffn = s.dense[0] if s.dense else s.first.ffn
    # transformers' product of all experts at once takes rows of whole 16 bytes only, 8 values in bfloat16.
    one_by_one = s.mixtures and (s.width % 8 or s.mixtures[0].width % 8)
    return {
        "hidden_size": s.width, "num_hidden_layers": len(s.layers),
        "num_attention_heads": a.n_head, "num_key_value_heads": a.n_kv_heads, "head_dim": a.head_dim,
        "intermediate_size": ffn.width, "hidden_act": ACTIVATIONS[ffn.activation],
        "max_position_embeddings": s.block_size, "rms_norm_eps": s.eps, **_write_rope(s),
        "attention_bias": a.bias, "attention_dropout": s.dropout,
        **({"experts_implementation": "eager"} if one_by_one else {}),
    }


def write_neox(s: Structure) -> Config:
    a, ffn = s.first.attn, s.first.ffn
    common = write_common(s)
    for name in ("num_key_value_heads", "head_dim", "rms_norm_eps", "partial_rotary_factor"):
        common.pop(name, None)
    share = (a.rotary_dim or a.head_dim) / a.head_dim
    common["rope_parameters"]["partial_rotary_factor"] = share
    return {
        **common, "rotary_pct": share, "rotary_emb_base": s.rope_base, "hidden_act": ACTIVATIONS[ffn.activation],
        "hidden_dropout": s.dropout, "layer_norm_eps": s.eps, "use_parallel_residual": s.parallel,
    }


def write_llama(s: Structure) -> Config:
    return {**write_common(s), "mlp_bias": s.first.ffn.bias}


def write_windowed(s: Structure) -> Config:
    """Mistral: every layer has the window, or none has."""
    return {**write_common(s), "sliding_window": s.first.attn.window}


def write_gemma(s: Structure) -> Config:
    a, local = s.first.attn, s.rope_base if s.rope_base_local is None else s.rope_base_local
    common = {name: value for name, value in write_common(s).items() if name not in ("hidden_act", "rope_scaling")}
    windows = [layer.attn.window for layer in s.layers]
    return {
        **common, "hidden_activation": ACTIVATIONS[s.first.ffn.activation],
        "query_pre_attn_scalar": _pre_attn_scalar(a), "attn_logit_softcapping": a.softcap,
        "final_logit_softcapping": s.logit_softcap,
        "sliding_window": next((w for w in windows if w is not None), s.block_size),
        "layer_types": ["full_attention" if w is None else "sliding_attention" for w in windows],
        "rope_parameters": {
            "full_attention": common["rope_parameters"],
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
        "rope_local_base_freq": local,
    }


def write_gemma2(s: Structure) -> Config:
    return {**write_gemma(s), "rope_parameters": write_common(s)["rope_parameters"]}


def _pre_attn_scalar(a: Attention) -> float:
    """Scores are divided by its root."""
    value = a.head_dim if a.scale is None else a.scale ** -2
    return round(value) if abs(value - round(value)) < 1e-6 * value else value


def write_phi3(s: Structure) -> Config:
    return {
        **write_common(s), "sliding_window": None, "resid_pdrop": s.dropout, "embd_pdrop": 0.0,
        "original_max_position_embeddings": s.block_size,
        "pad_token_id": None,  # the class's own is beyond a small vocabulary
    }


def write_starcoder2(s: Structure) -> Config:
    return {
        **write_common(s), "norm_epsilon": s.eps, "use_bias": True, "sliding_window": None,
        "residual_dropout": s.dropout, "embedding_dropout": 0.0,
    }


def write_mixtral(s: Structure) -> Config:
    m = s.first.ffn
    return {
        **write_common(s), "num_local_experts": m.n, "num_experts_per_tok": m.n_chosen, "sliding_window": None,
    }


def write_granite(s: Structure) -> Config:
    return {
        **write_mixtral(s),
        "shared_intermediate_size": s.first.ffn.shared_width, "attention_multiplier": s.first.attn.head_dim**-0.5,
        "embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0,
    }


def write_qwen3_moe(s: Structure) -> Config:
    m = s.first.ffn
    return {
        **write_common(s), "num_experts": m.n, "num_experts_per_tok": m.n_chosen, "moe_intermediate_size": m.width,
        "norm_topk_prob": m.renormalized, "decoder_sparse_step": 1, "mlp_only_layers": [],
    }


def _write_deepseek_experts(s: Structure) -> Config:
    """Experts in the manner of DeepSeek, behind so many dense layers."""
    if not s.mixtures:
        none = ("n_routed_experts", "num_experts_per_tok", "n_shared_experts", "n_group", "topk_group")
        return {"first_k_dense_replace": len(s.dense), "moe_intermediate_size": 1, **dict.fromkeys(none, 0)}
    m = s.mixtures[0]
    return {
        "first_k_dense_replace": len(s.dense), "n_routed_experts": m.n, "num_experts_per_tok": m.n_chosen,
        "moe_intermediate_size": m.width, "n_shared_experts": m.shared_width // m.width,
        "norm_topk_prob": m.renormalized, "routed_scaling_factor": m.routed_scale, "n_group": m.n_group,
        "topk_group": m.topk_group, "topk_method": "noaux_tc", "scoring_func": m.scoring,
    }


def write_glm4_moe(s: Structure) -> Config:
    return {
        **write_common(s), **_write_deepseek_experts(s), "use_qk_norm": s.first.attn.qk_norm,
        "partial_rotary_factor": 1.0,
        "num_nextn_predict_layers": 0,  # not in the class, but llama.cpp's converter takes 1 without it
    }


def write_deepseek(s: Structure) -> Config:
    a = s.first.attn
    config = {
        **write_common(s), **_write_deepseek_experts(s),
        "head_dim": a.rope_dim, "q_lora_rank": a.q_latent or None, "kv_lora_rank": a.kv_latent,
        "qk_nope_head_dim": a.head_dim, "qk_rope_head_dim": a.rope_dim, "v_head_dim": a.head_dim,
        "rope_interleave": True,
    }
    if s.rope_scaling == "yarn":  # a factor of scores is said by this, which cancels the one of rotations
        m = mscale_all_dim(s)
        for name in ("rope_parameters", "rope_scaling"):
            config[name] = {**config[name], "mscale": m, "mscale_all_dim": m}
            del config[name]["attention_factor"]
    return config


def write_deepseek_v2(s: Structure) -> Config:
    return {**write_deepseek(s), "topk_method": "greedy", "mlp_bias": False}


def mscale_all_dim(s: Structure) -> float:
    """DeepSeek's: scores are multiplied by (1 + 0.1 · this · ln factor)², and that is how a factor of scores is said.

    Zero where there is none.
    """
    a = s.first.attn
    if a.scale is None:
        return 0.0
    root = math.sqrt(a.scale * math.sqrt(a.head_dim + a.rope_dim))
    return round((root - 1) / (0.1 * math.log(s.rope_factor)), 6)


# ---- read ----


def _act(name: str) -> str:
    if name not in OURS:
        raise ValueError(f"its activation {name} is not known here; {', '.join(sorted(OURS))} are")
    return OURS[name]


def _rope(c: Config) -> Config:
    """The fields of a structure that say how it rotates."""
    rope = c["rope_parameters"]
    kind, fields = rope.get("rope_type", "default"), dict(rope_base=float(rope["rope_theta"]))
    original = rope.get("original_max_position_embeddings") or c["max_position_embeddings"]
    if kind == "default":
        return fields
    if kind == "dynamic":  # within the original context it stretches nothing
        return {**fields, "block_size": original}
    if kind not in ("linear", "llama3", "yarn"):
        raise ValueError(f"its rotations are stretched by {kind}, which is not known here; linear, llama3 and yarn are")
    usual = {
        "low_freq_factor": LOW_FREQ, "high_freq_factor": HIGH_FREQ, "beta_fast": BETA_FAST, "beta_slow": BETA_SLOW,
        "truncate": True,
    }
    for name, value in usual.items():
        if rope.get(name, value) not in (value, None):
            raise ValueError(f"{name} of its rotations is {rope[name]}; {value} is all that is known here")
    fields |= dict(rope_scaling=kind, rope_factor=float(rope["factor"]))
    if kind != "linear":
        fields["rope_original"] = original
    if kind == "yarn":
        gain, m, m_all = (rope.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
        log = 0.1 * math.log(rope["factor"])
        if gain is None and m and m_all:
            gain = (m * log + 1) / (m_all * log + 1)
        if gain is not None and gain != log + 1:
            fields["rope_attention"] = gain
    return fields


def _attn(c: Config, bias: bool = False, out_bias: bool = False, **more: Any) -> Attention:
    n_head = c["num_attention_heads"]
    width = c.get("head_dim") or c["hidden_size"] // n_head
    share = (c.get("rope_parameters") or {}).get("partial_rotary_factor", 1.0)
    rotary = None if share == 1 else int(width * share)
    return Attention(
        n_head, c.get("num_key_value_heads") or n_head, width, bias, out_bias, rotary_dim=rotary, **more
    )


def _dense(c: Config, gated: bool = True, bias: bool = False, act: str = "hidden_act") -> FeedForward:
    return FeedForward(c["intermediate_size"], _act(c[act]), gated, bias)


def _structure(c: Config, layers: tuple[Layer, ...] | Layer, **more: Any) -> Structure:
    """A structure in the manner of Llama, but for `more`."""
    layers = layers if isinstance(layers, tuple) else (layers,) * c["num_hidden_layers"]
    fields = dict(
        vocab_size=c["vocab_size"], width=c["hidden_size"], block_size=c["max_position_embeddings"], norm="rms",
        norm_bias=False, eps=c.get("rms_norm_eps"), n_positions=None, layers=layers, tied=c["tie_word_embeddings"],
        head_bias=False, dropout=float(c.get("attention_dropout") or 0.0), **_rope(c),
    )
    return Structure(**{**fields, **more})


def _within_window(c: Config, s: Structure) -> Structure:
    """The same up to its window, where no window is seen: graphs of llama.cpp for these classes have none."""
    windows = {"sliding_attention"} & set(c.get("layer_types") or ["sliding_attention"])
    window = c.get("sliding_window") if c.get("use_sliding_window", True) and windows else None
    return Structure(**{**vars(s), "block_size": min(s.block_size, window or s.block_size)})


def read_gpt2(c: Config) -> Structure:
    for name, usual in (
        ("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False), ("add_cross_attention", False),
    ):
        if c.get(name, usual) != usual:
            raise ValueError(f"{name} is {c[name]}, and {usual} is all that is known here")
    width, n_head = c["n_embd"], c["n_head"]
    n_kv = 1 if c.get("multi_query") else n_head
    attn = Attention(n_head, n_kv, width // n_head, bias=True, out_bias=True)
    ffn = FeedForward(c.get("n_inner") or 4 * width, _act(c["activation_function"]), gated=False, bias=True)
    return Structure(
        vocab_size=c["vocab_size"], width=width, block_size=c["n_positions"], norm="layer", norm_bias=True,
        eps=c["layer_norm_epsilon"], n_positions=c["n_positions"], rope_base=10_000.0,
        layers=(Layer(attn, ffn),) * c["n_layer"], tied=c["tie_word_embeddings"], head_bias=False,
        dropout=float(c["resid_pdrop"]),
    )


def read_neox(c: Config) -> Structure:
    if not c["attention_bias"]:
        raise ValueError("attention_bias is False, and a GPT-NeoX with biases is all that is known here")
    layer = Layer(_attn(c, bias=True, out_bias=True), _dense(c, gated=False, bias=True))
    return _structure(
        c, layer, norm="layer", norm_bias=True, eps=c["layer_norm_eps"], parallel=c["use_parallel_residual"],
        dropout=float(c["hidden_dropout"]),
    )


def read_llama(c: Config) -> Structure:
    bias = c["attention_bias"]
    return _structure(c, Layer(_attn(c, bias, bias), _dense(c, bias=c.get("mlp_bias", False))))


def read_mistral(c: Config) -> Structure:
    return _within_window(c, _structure(c, Layer(_attn(c), _dense(c))))


def read_qwen2(c: Config) -> Structure:
    return _within_window(c, _structure(c, Layer(_attn(c, bias=True), _dense(c))))


def read_qwen3(c: Config) -> Structure:
    bias = c["attention_bias"]
    return _within_window(c, _structure(c, Layer(_attn(c, bias, bias, qk_norm=True), _dense(c))))


def read_arcee(c: Config) -> Structure:
    bias = c["attention_bias"]
    return _structure(c, Layer(_attn(c, bias, bias), _dense(c, gated=False, bias=c["mlp_bias"])))


def _gemma(c: Config, qk_norm: bool) -> Structure:
    rope = c["rope_parameters"]
    nested = "full_attention" in rope
    full, local = (rope["full_attention"], rope["sliding_attention"]) if nested else (rope, rope)
    if nested and local.get("rope_type", "default") != "default":
        raise ValueError(f"layers with a window rotate by {local['rope_type']}, and default is all that is known here")
    if c.get("use_bidirectional_attention"):
        raise ValueError("it looks ahead (use_bidirectional_attention), so it is no model that writes")
    c = {**c, "rope_parameters": full}
    bias, width = c["attention_bias"], c["head_dim"]
    scale = c["query_pre_attn_scalar"] ** -0.5
    layers = tuple(
        Layer(
            _attn(
                c, bias, bias, qk_norm=qk_norm, softcap=c.get("attn_logit_softcapping"),
                scale=None if c["query_pre_attn_scalar"] == width else scale,
                window=c["sliding_window"] if kind == "sliding_attention" else None,
            ),
            _dense(c, act="hidden_activation"),
        )
        for kind in c["layer_types"]
    )
    s = _structure(
        c, layers, norm_place="both", embedding_scale=c["hidden_size"] ** 0.5,
        logit_softcap=c.get("final_logit_softcapping"),
    )
    base = float(local["rope_theta"])
    return s if base == s.rope_base else Structure(**{**vars(s), "rope_base_local": base})


def read_gemma2(c: Config) -> Structure:
    return _gemma(c, qk_norm=False)


def read_gemma3(c: Config) -> Structure:
    return _gemma(c, qk_norm=True)


def read_phi3(c: Config) -> Structure:
    # The class's own original context has no meaning without the stretching that it belongs to.
    return _within_window(c, _structure(c, Layer(_attn(c), _dense(c))))


def read_olmo2(c: Config) -> Structure:
    bias = c["attention_bias"]
    return _structure(c, Layer(_attn(c, bias, bias, qk_norm=True, qk_norm_over="all"), _dense(c)), norm_place="after")


def read_starcoder2(c: Config) -> Structure:
    bias = c["use_bias"]
    if not bias:
        raise ValueError("use_bias is False, and a StarCoder2 with biases is all that is known here")
    layer = Layer(_attn(c, bias, bias), _dense(c, gated=False, bias=bias))
    s = _structure(
        c, layer, norm="layer", norm_bias=True, eps=c["norm_epsilon"], dropout=float(c["residual_dropout"])
    )
    return _within_window(c, s)


def read_jais2(c: Config) -> Structure:
    layer = Layer(_attn(c, True, True), _dense(c, gated=False, bias=True))
    return _structure(c, layer, norm="layer", norm_bias=True, eps=c["layer_norm_eps"])


def _experts(c: Config, n: int, width: int, norm_topk: bool, **more: Any) -> Experts:
    k = c["num_experts_per_tok"]
    fields = dict(scoring="softmax", shared_width=0, has_selection_bias=False)
    return Experts(
        n, k, width, _act(c["hidden_act"]), True, **{**fields, **more},
        norm_topk=None if norm_topk == (k > 1) else norm_topk,
    )


def read_mixtral(c: Config) -> Structure:
    experts = _experts(c, c["num_local_experts"], c["intermediate_size"], norm_topk=True)
    return _within_window(c, _structure(c, Layer(_attn(c), experts)))


def read_qwen3_moe(c: Config) -> Structure:
    if c["decoder_sparse_step"] != 1 or c["mlp_only_layers"]:
        raise ValueError("some of its layers are dense, and a Qwen3-MoE of experts only is all that is known here")
    bias = c["attention_bias"]
    experts = _experts(c, c["num_experts"], c["moe_intermediate_size"], c["norm_topk_prob"])
    return _within_window(c, _structure(c, Layer(_attn(c, bias, bias, qk_norm=True), experts)))


def read_granite(c: Config) -> Structure:
    for name, usual in (
        ("attention_multiplier", (c["hidden_size"] // c["num_attention_heads"]) ** -0.5), ("embedding_multiplier", 1.0),
        ("residual_multiplier", 1.0), ("logits_scaling", 1.0),
    ):
        if abs(c[name] - usual) > 1e-6 * usual:
            raise ValueError(f"{name} is {c[name]}, and {usual:g} is all that is known here")
    bias = c["attention_bias"]
    experts = _experts(
        c, c["num_local_experts"], c["intermediate_size"], norm_topk=True, shared_width=c["shared_intermediate_size"]
    )
    return _structure(c, Layer(_attn(c, bias, bias), experts))


def _deepseek_layers(c: Config, attn: Attention, scoring: str) -> tuple[Layer, ...]:
    """So many dense layers, and layers of experts."""
    n_dense, n_layer = c["first_k_dense_replace"], c["num_hidden_layers"]
    if n_dense >= n_layer:
        return (Layer(attn, _dense(c)),) * n_layer
    has_bias = scoring == "sigmoid"
    groups = (c.get("n_group") or 1, c.get("topk_group") or 1) if has_bias else (1, 1)
    if not has_bias and c.get("topk_method", "greedy") != "greedy":
        raise ValueError(f"topk_method is {c['topk_method']}, and greedy is all that is known here")
    width = c["moe_intermediate_size"]
    experts = _experts(
        c, c["n_routed_experts"], width, c["norm_topk_prob"], scoring=scoring, has_selection_bias=has_bias,
        shared_width=(c["n_shared_experts"] or 0) * width, routed_scale=float(c["routed_scaling_factor"]),
        n_group=groups[0], topk_group=groups[1],
    )
    return (Layer(attn, _dense(c)),) * n_dense + (Layer(attn, experts),) * (n_layer - n_dense)


def read_glm4_moe(c: Config) -> Structure:
    attn = _attn(c, bias=c["attention_bias"], qk_norm=c["use_qk_norm"])
    return _structure(c, _deepseek_layers(c, attn, "sigmoid"))


def _deepseek(c: Config, scoring: str) -> Structure:
    if c["v_head_dim"] != c["qk_nope_head_dim"]:
        raise ValueError(
            f"v_head_dim {c['v_head_dim']} is another than qk_nope_head_dim {c['qk_nope_head_dim']}, which are one here"
        )
    if not c.get("rope_interleave", True):
        raise ValueError("rope_interleave is False, and True is all that is known here")
    bias, n_head, rope = c["attention_bias"], c["num_attention_heads"], c["rope_parameters"]
    scale = None
    if m := rope.get("mscale_all_dim"):
        root = 0.1 * m * math.log(rope["factor"]) + 1
        scale = root * root / math.sqrt(c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
    attn = Attention(
        n_head, n_head, c["qk_nope_head_dim"], bias, bias, scale=scale, q_latent=c["q_lora_rank"] or 0,
        kv_latent=c["kv_lora_rank"], rope_dim=c["qk_rope_head_dim"],
    )
    return _structure(c, _deepseek_layers(c, attn, scoring))


def read_deepseek_v2(c: Config) -> Structure:
    return _deepseek(c, "softmax")


def read_deepseek_v3(c: Config) -> Structure:
    return _deepseek(c, "sigmoid")
