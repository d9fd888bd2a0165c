"""A tiny model of each family that a training can start from, made by `transformers` with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCAB, WINDOW = 96, 200
BASE: dict[str, Any] = dict(
    vocab_size=VOCAB, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=256,
)  # fmt: skip
GROUPED = dict(BASE, num_key_value_heads=2)
LATENT = dict(
    BASE, num_key_value_heads=4, kv_lora_rank=32, q_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8,
    v_head_dim=16, n_routed_experts=8, n_shared_experts=1, moe_intermediate_size=32, first_k_dense_replace=1,
    num_experts_per_tok=2,
)  # fmt: skip
LLAMA3 = dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64, factor=8.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
MSCALE = dict(YARN, mscale=0.707, mscale_all_dim=0.707, beta_fast=32, beta_slow=1)
GEMMA = dict(GROUPED, head_dim=32, sliding_window=16)

# name → class of configuration, its options
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", dict(vocab_size=VOCAB, n_embd=64, n_layer=3, n_head=4, n_positions=256)),
    "gpt_neox": ("GPTNeoXConfig", BASE),
    "gpt_neox, one after the other": ("GPTNeoXConfig", dict(BASE, use_parallel_residual=False, rotary_pct=1.0)),
    "llama": ("LlamaConfig", dict(GROUPED, rope_theta=1e5)),
    "llama, tied, wide heads": ("LlamaConfig", dict(GROUPED, tie_word_embeddings=True, head_dim=32)),
    "llama 3": ("LlamaConfig", dict(GROUPED, rope_scaling=dict(LLAMA3, rope_type="llama3"))),
    "llama, yarn": ("LlamaConfig", dict(GROUPED, rope_scaling=YARN)),
    "llama, linear": ("LlamaConfig", dict(GROUPED, rope_scaling=dict(rope_type="linear", factor=4.0))),
    "llama, half of the biases": ("LlamaConfig", dict(GROUPED, attention_bias=True)),
    "mistral": ("MistralConfig", dict(GROUPED, sliding_window=None, head_dim=16)),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", dict(GROUPED, head_dim=32)),
    "gemma2": ("Gemma2Config", dict(GEMMA, query_pre_attn_scalar=32)),
    "gemma3": ("Gemma3TextConfig", dict(GEMMA, query_pre_attn_scalar=32, rope_theta=1e6)),
    "gemma3, scaled": ("Gemma3TextConfig", dict(GEMMA, query_pre_attn_scalar=24, sliding_window_pattern=2)),
    "starcoder2": ("Starcoder2Config", dict(GROUPED, hidden_act="gelu_pytorch_tanh", sliding_window=None)),
    "phi3": ("Phi3Config", dict(GROUPED, pad_token_id=None)),
    "phi3, partly rotating": ("Phi3Config", dict(GROUPED, pad_token_id=None, partial_rotary_factor=0.5)),
    "olmo2": ("Olmo2Config", GROUPED),
    "mixtral": ("MixtralConfig", dict(GROUPED, num_local_experts=4, num_experts_per_tok=2, sliding_window=None)),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        dict(GROUPED, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=16, norm_topk_prob=True),
    ),
    "deepseek_v2": ("DeepseekV2Config", LATENT),
    "deepseek_v2, yarn": ("DeepseekV2Config", dict(LATENT, rope_scaling=MSCALE)),
    "deepseek_v3": ("DeepseekV3Config", dict(LATENT, n_group=4, topk_group=2, routed_scaling_factor=2.5)),
}


@torch.no_grad()
def make_family(name: str, folder: Path) -> torch.nn.Module:
    """Write a model of this family to `folder`, and return it as `transformers` computes it."""
    import transformers

    kind, options = FAMILIES[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, kind)(**options), attn_implementation="eager"
    )
    model = model.float().eval()
    for parameter in model.parameters():  # so large that a mistake is seen
        if parameter.dim() > 1:
            parameter.normal_(0, 0.08)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    for key, buffer in model.named_buffers():
        if "correction" in key:
            buffer.normal_(0, 0.1)
    model.save_pretrained(folder)
    return model
