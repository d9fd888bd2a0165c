"""Multi-head latent attention: keys and values are made from one small vector a token, and only that is cached."""

from __future__ import annotations

import torch
from torch import nn

from custom_llm.config.block import BlockConfig
from custom_llm.config.model import ModelConfig
from custom_llm.model.attention import LayerCache, attend, rope_of, split_heads
from custom_llm.model.layers import Dropout, RMSNorm, Rotary


class MultiHeadLatentAttention(nn.Module):
    """MLA with a decoupled rotary head (DeepSeek-V2, Liu et al. 2024, arXiv:2405.04434, section 2.1).

    Keys and values of all heads come from one latent of `kv_latent_dim`, normalised by RMSNorm; queries likewise from
    one of `q_latent_dim`. Since a rotation cannot pass through that compression, positions are in an additional part
    of each query and in one additional key that all heads share, `rope_head_dim` wide.

    Each head is as wide as any (`ModelConfig.head_width`), besides its rotary part. Biases are in the projections that
    read the input and in the last one, as in DeepSeek.
    """

    def __init__(self, config: ModelConfig, block: BlockConfig, layer: int) -> None:
        super().__init__()
        n_embd, bias, eps = config.n_embd, config.bias, config.norm_eps
        down_bias = bias if config.qkv_bias is None else config.qkv_bias
        self.n_head, self.head_dim, self.dropout = block.n_head, config.head_width(block), config.dropout
        heads = self.n_head * self.head_dim
        self.scale = config.attn_scale
        self.kv_latent_dim = block.kv_latent_dim
        self.rope_head_dim = block.rope_head_dim or 0  # 0 where positions are added to the embeddings
        self.query_width = self.head_dim + self.rope_head_dim
        self.query_down = None
        if block.q_latent_dim:
            self.query_down = nn.Linear(n_embd, block.q_latent_dim, down_bias)
            self.query_norm = RMSNorm(block.q_latent_dim, eps=eps)
            self.query_up = nn.Linear(block.q_latent_dim, self.n_head * self.query_width, bias=False)
        else:
            self.query = nn.Linear(n_embd, self.n_head * self.query_width, bias=False)
        self.kv_down = nn.Linear(n_embd, self.kv_latent_dim + self.rope_head_dim, down_bias)
        self.kv_norm = RMSNorm(self.kv_latent_dim, eps=eps)
        self.key_up = nn.Linear(self.kv_latent_dim, heads, bias=False)
        self.value_up = nn.Linear(self.kv_latent_dim, heads, bias=False)
        self.proj = nn.Linear(heads, n_embd, bias)
        self.proj_dropout = Dropout(config.dropout)
        self.rotary = None
        if self.rope_head_dim:
            self.rotary = Rotary(config.block_size, self.rope_head_dim, rope_of(config, layer))
        # As in MultiHeadSelfAttention; what is cached is the latent and the key that rotates.
        self.n_cached = self.kv_latent_dim + self.rope_head_dim
        self.n_activations = self.n_head * (4 * self.query_width + self.head_dim + 1)
        self.n_activations += 3 * (block.q_latent_dim + self.kv_latent_dim) + self.rope_head_dim

    def forward(self, x: torch.Tensor, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd); with a cache, x are the tokens that follow those in it."""
        start = cache.length if cache else 0
        q = self.query_up(self.query_norm(self.query_down(x))) if self.query_down is not None else self.query(x)
        q = split_heads(q, self.n_head)  # (B, n_head, T, head_dim + rope_head_dim)
        latent, turning = self.kv_down(x).unsqueeze(1).split([self.kv_latent_dim, self.rope_head_dim], dim=-1)
        latent = self.kv_norm(latent)  # (B, 1, T, kv_latent_dim)
        if self.rotary is not None:
            still, turned = q.split([self.head_dim, self.rope_head_dim], dim=-1)
            q = torch.cat([still, self.rotary(turned, start)], dim=-1)
            turning = self.rotary(turning, start)  # (B, 1, T, rope_head_dim)
        if cache is not None:
            latent, turning = cache.append(latent, turning)
        k = split_heads(self.key_up(latent.squeeze(1)), self.n_head)  # (B, n_head, S, head_dim)
        v = split_heads(self.value_up(latent.squeeze(1)), self.n_head)  # (B, n_head, S, head_dim)
        k = torch.cat([k, turning.expand(-1, self.n_head, -1, -1)], dim=-1)  # (B, n_head, S, head_dim + rope_head_dim)
        y = attend(q, k, v, self.dropout if self.training else 0.0, self.scale)  # (B, T, n_embd)
        return self.proj_dropout(self.proj(y))
