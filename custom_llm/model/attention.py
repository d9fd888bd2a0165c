"""Causal self-attention. Heads have keys and values of their own (mha), one in a group (gqa) or one for all (mqa)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.config.block import BlockConfig
from custom_llm.config.model import ModelConfig
from custom_llm.model.kernels import SHORT_IN_BFLOAT16, CausalAttention, trains_on_cpu
from custom_llm.model.layers import EPS, Dropout, RMSNorm, Rotary


class LayerCache:
    """The tensors of one layer, grown along time: keys and values, or the latents they are made from.

    Each is (B, n_kv_heads, T, width); room for all of them is taken at the first call.
    """

    def __init__(self, n_positions: int) -> None:
        self.n_positions = n_positions
        self.length = 0  # positions held
        self._tensors: tuple[torch.Tensor, ...] = ()

    def append(self, *new: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take in the tensors of T new positions and return those of all positions so far."""
        if not self._tensors:
            self._tensors = tuple(x.new_empty(*x.shape[:2], self.n_positions, x.shape[3]) for x in new)
        stop = self.length + new[0].shape[2]
        for held, x in zip(self._tensors, new, strict=True):
            held[:, :, self.length : stop] = x
        self.length = stop
        return tuple(held[:, :, :stop] for held in self._tensors)

    def clear(self) -> None:
        """Forget everything, and keep the room."""
        self.length = 0


class Cache:
    """One `LayerCache` for every layer of a model."""

    def __init__(self, n_layer: int, n_positions: int) -> None:
        self.layers = [LayerCache(n_positions) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        return self.layers[0].length

    def clear(self) -> None:
        for layer in self.layers:
            layer.clear()


# Tokens up to which a CPU attends in float32, whatever the precision: in bfloat16 its backward pass takes seven times
# as long over 64 tokens, as long over 256, and two thirds over 1,024.
SHORT = 256


class MultiHeadSelfAttention(nn.Module):
    """Attention over the tokens so far (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), masked as in GPT.

    Four separate matrices `key`, `query`, `value`, `proj`, under the names of the tutorial.

    Args:
        block_size: longest sequence; the table of rotations has as many rows.
        n_kv_heads: heads of keys and values, a divisor of n_head (default: n_head); 1 is multi-query attention
            (Shazeer 2019, arXiv:1911.02150), others are grouped-query attention (Ainslie et al. 2023,
            arXiv:2305.13245).
        qk_norm: RMSNorm over the queries and the keys of each head, before they rotate (as in Qwen3).
        rotary: rotate queries and keys by their positions.
    """

    def __init__(
        self, n_embd: int, n_head: int, block_size: int, dropout: float, n_kv_heads: int | None = None,
        bias: bool = True, qk_norm: bool = False, rotary: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"n_embd {n_embd} is not a multiple of n_head {n_head}")
        self.n_head = n_head
        self.n_kv_heads = n_kv_heads or n_head
        self.head_dim = n_embd // n_head
        self.dropout = dropout
        self.key = nn.Linear(n_embd, self.n_kv_heads * self.head_dim, bias)
        self.query = nn.Linear(n_embd, n_embd, bias)
        self.value = nn.Linear(n_embd, self.n_kv_heads * self.head_dim, bias)
        self.proj = nn.Linear(n_embd, n_embd, bias)
        self.proj_dropout = Dropout(dropout)
        self.query_norm = RMSNorm(self.head_dim, eps=EPS) if qk_norm else None
        self.key_norm = RMSNorm(self.head_dim, eps=EPS) if qk_norm else None
        self.rotary = Rotary(block_size, self.head_dim) if rotary else None
        # What it costs: numbers of a head that a query and a key are compared by, those that a cache keeps of a token,
        # and about those of a token that are kept for the backward pass.
        self.query_width, self.n_cached = self.head_dim, 2 * self.n_kv_heads * self.head_dim
        self.n_activations = 2 * n_embd + self.n_cached + n_head  # weights are computed again, but not their sums
        self.n_activations += 2 * n_embd + self.n_cached if qk_norm else 0
        self.n_activations += n_embd if rotary else 0

    @classmethod
    def of(cls, c: ModelConfig, b: BlockConfig) -> MultiHeadSelfAttention:
        """The attention of a block in a model."""
        sizes = (c.n_embd, b.n_head, c.block_size, c.dropout)
        return cls(*sizes, b.kv_heads, c.bias, c.qk_norm, rotary=c.pos_emb == "rope")

    def forward(self, x: torch.Tensor, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd); with a cache, x are the tokens that follow those in it."""
        q = split_heads(self.query(x), self.n_head)  # (B, n_head, T, head_dim)
        k = split_heads(self.key(x), self.n_kv_heads)  # (B, n_kv_heads, T, head_dim)
        v = split_heads(self.value(x), self.n_kv_heads)  # (B, n_kv_heads, T, head_dim)
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if self.rotary is not None:
            start = cache.length if cache else 0
            q, k = self.rotary(q, start), self.rotary(k, start)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, n_kv_heads, S, head_dim), S tokens so far
        y = attend(q, k, v, self.dropout if self.training else 0.0)  # (B, T, n_embd)
        return self.proj_dropout(self.proj(y))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
    """softmax(q·kᵀ/√width)·v over the tokens up to each query's own; heads side by side again, (B, T, n_head · v's).

    Args:
        q: (B, n_head, T, width), the last T of the S positions.
        k: (B, n_kv_heads, S, width); n_head is a multiple of n_kv_heads.
        v: (B, n_kv_heads, S, at most width).
        dropout: share of the softmax to drop; on a CPU none is, where no kernel can that does not write all of it out:
            a step would take half as long again, and small models learn less in it (docs/training.md).
    """
    T, S = q.shape[2], k.shape[2]
    mask = None
    if 1 < T < S:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if trains_on_cpu(q) and q.dtype == torch.bfloat16 and 1 < T == S <= SHORT_IN_BFLOAT16:
        return CausalAttention.apply(q, k, v, q.shape[3] ** -0.5).transpose(1, 2).flatten(2)
    padding = q.shape[3] - v.shape[3]
    if padding:  # the kernels that never write the (T, S) scores out take one width only
        v = F.pad(v, (0, padding))
    on_cpu = q.device.type == "cpu"
    options = dict(dropout_p=0.0 if on_cpu else dropout, is_causal=1 < T == S, enable_gqa=q.shape[1] != k.shape[1])
    if on_cpu and S <= SHORT:
        kind = torch.promote_types(q.dtype, torch.float32)  # a model in float64 stays as exact
        with torch.autocast("cpu", enabled=False):
            y = F.scaled_dot_product_attention(q.to(kind), k.to(kind), v.to(kind), mask, **options).to(q.dtype)
    else:
        y = F.scaled_dot_product_attention(q, k, v, mask, **options)
    if padding:
        y = y[..., :-padding]
    return y.transpose(1, 2).flatten(2)  # (B, n_head, T, width) → (B, T, n_head · width)


def split_heads(x: torch.Tensor, n_head: int) -> torch.Tensor:
    """(B, T, n_head · width) → (B, n_head, T, width)"""
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)
