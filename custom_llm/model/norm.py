"""Normalisation layers."""

from __future__ import annotations

from torch import nn

EPS = 1e-5


def make_norm(kind: str, width: int, bias: bool) -> nn.Module:
    """LayerNorm ("layer"; Ba et al. 2016, arXiv:1607.06450) or RMSNorm ("rms"; Zhang and Sennrich 2019, 1910.07467).

    Args:
        bias: LayerNorm only; RMSNorm has none.
    """
    return nn.LayerNorm(width, eps=EPS, bias=bias) if kind == "layer" else nn.RMSNorm(width, eps=EPS)
