"""Causal self-attention. Heads have keys and values of their own (mha), one in a group (gqa) or one for all (mqa)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.config.block import BlockConfig
from custom_llm.config.model import ModelConfig
from custom_llm.model.kernels import SHORT_IN_BFLOAT16, CausalAttention, trains_on_cpu
from custom_llm.model.layers import Dropout, RMSNorm, Rope, Rotary


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
        n_kv_heads: heads of keys and values, a divisor of n_head (default: n_head); 1 is multi-query attention
            (Shazeer 2019, arXiv:1911.02150), others are grouped-query attention (Ainslie et al. 2023,
            arXiv:2305.13245).
        head_dim: width of a head (default: n_embd / n_head).
        bias, qkv_bias: of all four matrices, and where it differs, of queries, keys and values.
        norm: makes what normalises queries and keys of that width before they rotate; None: nothing does.
        norm_over: head, each by itself (as in Qwen3), or all together (as in OLMo 2).
        rotary: rotates queries and keys by their positions.
        scale: what scores are multiplied by (default: 1/√head_dim).
        softcap: bound of scores (as in Gemma 2); window: tokens a query looks back on, itself included.
    """

    def __init__(
        self, n_embd: int, n_head: int, block_size: int, dropout: float, *, n_kv_heads: int | None = None,
        head_dim: int | None = None, bias: bool = True, qkv_bias: bool | None = None,
        norm: Callable[[int], nn.Module] | None = None, norm_over: str = "head", rotary: Rotary | None = None,
        scale: float | None = None, softcap: float | None = None, window: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if head_dim is None and n_embd % n_head:
            raise ValueError(f"n_embd {n_embd} is not a multiple of n_head {n_head}")
        self.n_head = n_head
        self.n_kv_heads = n_kv_heads or n_head
        self.head_dim = head_dim or n_embd // n_head
        self.dropout, self.scale, self.softcap = dropout, scale, softcap
        self.window = window if window is not None and window < block_size else None
        queries, keys = self.n_head * self.head_dim, self.n_kv_heads * self.head_dim
        qkv_bias = bias if qkv_bias is None else qkv_bias
        self.key = nn.Linear(n_embd, keys, qkv_bias)
        self.query = nn.Linear(n_embd, queries, qkv_bias)
        self.value = nn.Linear(n_embd, keys, qkv_bias)
        self.proj = nn.Linear(queries, n_embd, bias)
        self.proj_dropout = Dropout(dropout)
        self.norm_over = norm_over
        self.query_norm = norm(self.head_dim if norm_over == "head" else queries) if norm else None
        self.key_norm = norm(self.head_dim if norm_over == "head" else keys) if norm else None
        self.rotary = rotary
        # What it costs: numbers of a head that a query and a key are compared by, those that a cache keeps of a token,
        # and about those of a token that are kept for the backward pass.
        self.query_width, self.n_cached = self.head_dim, 2 * keys
        self.n_activations = 2 * queries + self.n_cached + n_head  # weights are computed again, but not their sums
        self.n_activations += 2 * queries + self.n_cached if norm else 0
        self.n_activations += queries if rotary else 0

    @classmethod
    def of(cls, c: ModelConfig, b: BlockConfig, layer: int) -> MultiHeadSelfAttention:
        """The attention of block `b`, number `layer` of a model."""
        width = c.head_width(b)
        rotary = Rotary(c.block_size, c.rotary_dim or width, rope_of(c, layer)) if c.pos_emb == "rope" else None
        return cls(
            c.n_embd, b.n_head, c.block_size, c.dropout, n_kv_heads=b.kv_heads, head_dim=width, bias=c.bias,
            qkv_bias=c.qkv_bias, norm=partial(RMSNorm, eps=c.norm_eps) if c.qk_norm else None,
            norm_over=c.qk_norm_over, rotary=rotary, scale=c.attn_scale, softcap=c.attn_softcap,
            window=c.window(layer),
        )  # fmt: skip

    def forward(self, x: torch.Tensor, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd); with a cache, x are the tokens that follow those in it."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.norm_over == "all" and self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        q = split_heads(q, self.n_head)  # (B, n_head, T, head_dim)
        k = split_heads(k, self.n_kv_heads)  # (B, n_kv_heads, T, head_dim)
        v = split_heads(v, self.n_kv_heads)  # (B, n_kv_heads, T, head_dim)
        if self.norm_over == "head" and self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if self.rotary is not None:
            start = cache.length if cache else 0
            q, k = self.rotary(q, start), self.rotary(k, start)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, n_kv_heads, S, head_dim), S tokens so far
        dropout = self.dropout if self.training else 0.0
        y = attend(q, k, v, dropout, self.scale, self.softcap, self.window)  # (B, T, n_head · head_dim)
        return self.proj_dropout(self.proj(y))


def rope_of(c: ModelConfig, layer: int) -> Rope:
    """The rotations of a layer; one with a window has a base of its own where there is one, and is never stretched."""
    if c.rope_base_local is not None and c.window(layer) is not None:
        return Rope(c.rope_base_local)
    return Rope(c.rope_base, c.rope_scaling, c.rope_factor, c.rope_original, c.rope_attention)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float, scale: float | None = None,
    softcap: float | None = None, window: int | None = None,
) -> torch.Tensor:  # fmt: skip
    """softmax(scale · q·kᵀ)·v over the tokens up to each query's own; heads side by side again, (B, T, n_head · v's).

    Args:
        q: (B, n_head, T, width), the last T of the S positions.
        k: (B, n_kv_heads, S, width); n_head is a multiple of n_kv_heads.
        v: (B, n_kv_heads, S, at most width).
        dropout: share of the softmax to drop; on a CPU none is, where no kernel can that does not write all of it out:
            a step would take half as long again, and small models learn less in it (docs/training.md).
        scale: None for 1/√width.
        softcap: scores s become softcap · tanh(s / softcap) (Gemma 2, arXiv:2408.00118).
        window: how many tokens, itself included, a query looks back on (Longformer, arXiv:2004.05150); None for all.
    """
    T, S = q.shape[2], k.shape[2]
    mask = None
    if 1 < T < S or (window is not None and window < S):
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        if window is not None:
            mask = mask.triu(S - T - window + 1)
    uncapped = softcap is None and mask is None
    if uncapped and trains_on_cpu(q) and q.dtype == torch.bfloat16 and 1 < T <= SHORT_IN_BFLOAT16:
        scale = q.shape[3] ** -0.5 if scale is None else scale
        return CausalAttention.apply(q, k, v, scale).transpose(1, 2).flatten(2)
    on_cpu = q.device.type == "cpu"
    if softcap is not None:
        return _attend_capped(q, k, v, mask, 0.0 if on_cpu else dropout, scale, softcap)
    padding = q.shape[3] - v.shape[3]
    if padding:  # the kernels that never write the (T, S) scores out take one width only
        v = F.pad(v, (0, padding))
    options = dict(
        dropout_p=0.0 if on_cpu else dropout, is_causal=mask is None and 1 < T, scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    if on_cpu and S <= SHORT:
        kind = torch.promote_types(q.dtype, torch.float32)  # a model in float64 stays as exact
        with torch.autocast("cpu", enabled=False):
            y = F.scaled_dot_product_attention(q.to(kind), k.to(kind), v.to(kind), mask, **options).to(q.dtype)
    else:
        y = F.scaled_dot_product_attention(q, k, v, mask, **options)
    if padding:
        y = y[..., :-padding]
    return y.transpose(1, 2).flatten(2)  # (B, n_head, T, width) → (B, T, n_head · width)


def _attend_capped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float, scale: float | None,
    softcap: float,
) -> torch.Tensor:  # fmt: skip
    """`attend` with bounded scores, for which PyTorch has no kernel: all of them are written out."""
    T, S, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    if mask is None:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)  # (B, n_head, T, S)
    scores = (softcap * (scores / softcap).tanh()).masked_fill(~mask, -torch.inf)
    weights = F.dropout(scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype), dropout)
    return (weights @ v).transpose(1, 2).flatten(2)


def split_heads(x: torch.Tensor, n_head: int) -> torch.Tensor:
    """(B, T, n_head · width) → (B, n_head, T, width)"""
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)
