"""Small layers that the others are made of: normalisation, dropout, positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.model.kernels import RMSNormFunction, Rotation, trains_on_cpu

EPS = 1e-5  # added to the mean square in norms
BASE = 10_000.0  # of the wavelengths of positions: the slowest turns once in 2π · BASE of them


class RMSNorm(nn.RMSNorm):
    """PyTorch's, with weights in the type of what it is given, as its fused kernels for a GPU want them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if trains_on_cpu(x):
            return RMSNormFunction.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


# name → a norm over so many numbers, with a bias or not
NORMS: dict[str, Callable[[int, bool], nn.Module]] = {
    "layer": lambda width, bias: nn.LayerNorm(width, eps=EPS, bias=bias),  # Ba et al. 2016, arXiv:1607.06450
    "rms": lambda width, bias: RMSNorm(width, eps=EPS),  # Zhang and Sennrich 2019, arXiv:1910.07467; it has no bias
}


VALUES = 1 << 16  # that 16 bits have


class Dropout(nn.Dropout):
    """PyTorch's (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html), made faster on a CPU.

    There random numbers come one after the other from one thread, and PyTorch draws one for each element; a number of
    64 bits suffices for four. It takes two fifths of the time.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
        n_dropped = round(self.p * VALUES)
        kept = drawn[: x.numel()].view(x.shape) >= n_dropped - VALUES // 2
        return x * kept.to(x.dtype).mul_(VALUES / (VALUES - n_dropped))  # which leaves the mean as it is


class Sinusoids(nn.Module):
    """A fixed table of positions, called like an embedding; it is not part of the weights.

    That of Vaswani et al. 2017 (arXiv:1706.03762, section 3.5), (n_positions, width): sin, cos, sin, cos, …
    """

    def __init__(self, n_positions: int, width: int) -> None:
        super().__init__()
        table = torch.empty(n_positions, width)
        table[:, 0::2], table[:, 1::2] = _angles(n_positions, width)
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """(T,) → (T, width)"""
        return self.table[positions]


class Rotary(nn.Module):
    """Rotations by position (RoPE; Su et al. 2021, arXiv:2104.09864), half-split: i turns with i + width/2."""

    def __init__(self, n_positions: int, width: int) -> None:
        super().__init__()
        sin, cos = _angles(n_positions, width)
        self.register_buffer("sin", sin, persistent=False)  # (n_positions, width/2)
        self.register_buffer("cos", cos, persistent=False)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """Rotate (B, n_head, T, width), whose first token stands at position `start`."""
        stop = start + x.shape[2]
        sin, cos = self.sin[start:stop].to(x.dtype), self.cos[start:stop].to(x.dtype)  # (T, width/2)
        if trains_on_cpu(x):
            return Rotation.apply(x, sin, cos)
        left, right = x.chunk(2, dim=-1)  # (B, n_head, T, width/2) each
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def _angles(n_positions: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sine and cosine of position / BASE^(2i/width), each (n_positions, width/2)."""
    if torch.get_default_device().type == "meta":  # where computing anything imports a compiler for seconds
        return torch.empty(n_positions, width // 2), torch.empty(n_positions, width // 2)
    # In float64, so that the table is the same to the last bit whoever computes it.
    frequency = BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(n_positions, dtype=torch.float64), frequency)
    return angle.sin().float(), angle.cos().float()
