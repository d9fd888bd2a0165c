"""Normalisation layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-5


class RMSNorm(nn.RMSNorm):
    """PyTorch's, with weights in the type of what it is given, as its fused kernels want them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def make_norm(kind: str, width: int, bias: bool) -> nn.Module:
    """LayerNorm ("layer"; Ba et al. 2016, arXiv:1607.06450) or RMSNorm ("rms"; Zhang and Sennrich 2019, 1910.07467).

    Args:
        bias: LayerNorm only; RMSNorm has none.
    """
    return nn.LayerNorm(width, eps=EPS, bias=bias) if kind == "layer" else RMSNorm(width, eps=EPS)
