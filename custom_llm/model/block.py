"""One transformer block: attention, then a feed-forward layer, each normalised first and added to its input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from custom_llm.model.attention import MultiHeadSelfAttention
from custom_llm.model.cache import LayerCache
from custom_llm.model.experts import MixtureOfExperts
from custom_llm.model.feed_forward import make_feed_forward
from custom_llm.model.latent_attention import MultiHeadLatentAttention
from custom_llm.model.norm import make_norm

if TYPE_CHECKING:
    from custom_llm.blocks import BlockConfig
    from custom_llm.config import ModelConfig


class TransformerBlock(nn.Module):
    """A pre-norm block (Radford et al. 2019); without further parts, GPT-2's."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        block_size: int,
        dropout: float,
        *,
        attn: nn.Module | None = None,
        ffn: nn.Module | None = None,
        norm: str = "layer",
        bias: bool = True,
    ) -> None:
        """Args:
        attn: called as attn(x, cache); default: multi-head attention with biases.
        ffn: called as ffn(x); default: GELU and 4 n_embd.
        norm, bias: kind of the two norms, and whether they have a bias.
        """
        super().__init__()
        self.ln1 = make_norm(norm, n_embd, bias)
        self.attn = attn or MultiHeadSelfAttention(n_embd, n_head, block_size, dropout)
        self.ln2 = make_norm(norm, n_embd, bias)
        self.ffn = ffn or make_feed_forward(n_embd, 4 * n_embd, "gelu", dropout, bias=True)

    def forward(self, x: torch.Tensor, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd)"""
        x = x + self.attn(self.ln1(x), cache)
        return x + self.ffn(self.ln2(x))


def make_block(config: ModelConfig, block: BlockConfig) -> TransformerBlock:
    """The block that `block` describes, in a model that `config` describes."""
    c, b = config, block
    sizes = (c.n_embd, b.n_head, c.block_size, c.dropout)
    if b.attn == "mla":
        rope_head_dim = b.rope_head_dim or 0
        attn = MultiHeadLatentAttention(*sizes, b.q_latent_dim, b.kv_latent_dim, rope_head_dim, c.bias)
    else:
        attn = MultiHeadSelfAttention(*sizes, b.kv_heads, c.bias, c.qk_norm, rotary=c.pos_emb == "rope")
    if b.moe:
        ffn = MixtureOfExperts(c.n_embd, b, c.dropout)
    else:
        ffn = make_feed_forward(c.n_embd, b.up_dim, b.non_linearity, c.dropout, c.bias)
    return TransformerBlock(*sizes, attn=attn, ffn=ffn, norm=c.norm, bias=c.bias)
