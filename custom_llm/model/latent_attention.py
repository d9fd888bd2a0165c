"""Multi-head latent attention: keys and values are made from one small vector a token, and only that is cached."""

from __future__ import annotations

import torch
from torch import nn

from custom_llm.config.block import BlockConfig
from custom_llm.config.model import ModelConfig
from custom_llm.model.attention import LayerCache, attend, split_heads
from custom_llm.model.layers import EPS, Dropout, RMSNorm, Rotary


class MultiHeadLatentAttention(nn.Module):
    """MLA with a decoupled rotary head (DeepSeek-V2, Liu et al. 2024, arXiv:2405.04434, section 2.1).

    Keys and values of all heads come from one latent of `kv_latent_dim`, normalised by RMSNorm; queries likewise from
    one of `q_latent_dim`. Since a rotation cannot pass through that compression, positions are in an additional part
    of each query and in one additional key that all heads share, `rope_head_dim` wide.

    Args:
        n_embd: width; a multiple of n_head. Each head is n_embd / n_head wide, besides its rotary part.
        q_latent_dim: 0 makes queries from the input itself.
        rope_head_dim: even; 0 where positions are added to the embeddings.
        bias: of the projections that read the input and of the last one, as in DeepSeek.
    """

    def __init__(
        self, n_embd: int, n_head: int, block_size: int, dropout: float, q_latent_dim: int, kv_latent_dim: int,
        rope_head_dim: int, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.n_head = n_head
        self.head_dim = head_dim = n_embd // n_head
        self.q_latent_dim, self.kv_latent_dim, self.rope_head_dim = q_latent_dim, kv_latent_dim, rope_head_dim
        self.dropout = dropout
        q_dim = n_head * (head_dim + rope_head_dim)
        if q_latent_dim:
            self.query_down = nn.Linear(n_embd, q_latent_dim, bias)
            self.query_norm = RMSNorm(q_latent_dim, eps=EPS)
            self.query_up = nn.Linear(q_latent_dim, q_dim, bias=False)
        else:
            self.query = nn.Linear(n_embd, q_dim, bias=False)
        self.kv_down = nn.Linear(n_embd, kv_latent_dim + rope_head_dim, bias)
        self.kv_norm = RMSNorm(kv_latent_dim, eps=EPS)
        self.key_up = nn.Linear(kv_latent_dim, n_embd, bias=False)
        self.value_up = nn.Linear(kv_latent_dim, n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd, bias)
        self.proj_dropout = Dropout(dropout)
        self.rotary = Rotary(block_size, rope_head_dim) if rope_head_dim else None

    @classmethod
    def of(cls, c: ModelConfig, b: BlockConfig) -> MultiHeadLatentAttention:
        """The attention of a block in a model."""
        sizes = (c.n_embd, b.n_head, c.block_size, c.dropout)
        return cls(*sizes, b.q_latent_dim, b.kv_latent_dim, b.rope_head_dim or 0, c.bias)

    @property
    def query_width(self) -> int:
        """Numbers of a head that a query and a key are compared by; values are padded to it."""
        return self.head_dim + self.rope_head_dim

    @property
    def n_cached(self) -> int:
        """Numbers that a cache keeps of a token: the latent and the key that rotates."""
        return self.kv_latent_dim + self.rope_head_dim

    @property
    def n_activations(self) -> int:
        """Numbers of a token, about, that are kept for the backward pass."""
        latents = 3 * (self.q_latent_dim + self.kv_latent_dim) + self.rope_head_dim
        return self.n_head * (4 * self.query_width + self.head_dim + 1) + latents

    def forward(self, x: torch.Tensor, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd); with a cache, x are the tokens that follow those in it."""
        start = cache.length if cache else 0
        q = self.query_up(self.query_norm(self.query_down(x))) if self.q_latent_dim else self.query(x)
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
        y = attend(q, k, v, self.dropout if self.training else 0.0)  # (B, T, n_embd)
        return self.proj_dropout(self.proj(y))
