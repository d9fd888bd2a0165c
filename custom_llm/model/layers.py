"""Small layers that the others are made of: normalisation, dropout, positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.model.kernels import RMSNormFunction, Rotation, trains_on_cpu

EPS = 1e-5  # added to the mean square in norms
BASE = 10_000.0  # of the wavelengths of positions: the slowest turns once in 2π · BASE of them
LOW_FREQ, HIGH_FREQ = 1.0, 4.0  # rotations in the original context between which llama3 blends, in all that use it
BETA_FAST, BETA_SLOW = 32.0, 1.0  # the same of yarn


class RMSNorm(nn.RMSNorm):
    """PyTorch's, with weights in the type of what it is given, as its fused kernels for a GPU want them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if trains_on_cpu(x):
            return RMSNormFunction.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


# name → a norm over so many numbers, with a bias or not, and what is added to the mean square
NORMS: dict[str, Callable[[int, bool, float], nn.Module]] = {
    "layer": lambda width, bias, eps: nn.LayerNorm(width, eps=eps, bias=bias),  # Ba et al. 2016, arXiv:1607.06450
    "rms": lambda width, bias, eps: RMSNorm(width, eps=eps),  # Zhang, Sennrich 2019, arXiv:1910.07467; it has no bias
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


@dataclass(frozen=True)
class Rope:
    """Rotations: how fast each pair of a head turns."""

    base: float = BASE
    scaling: str | None = None  # linear, llama3 or yarn
    factor: float | None = None  # by which the context is stretched
    original: int | None = None  # the context before that
    attention: float | None = None  # yarn: what is rotated is multiplied by it; None: 1 + 0.1 ln factor

    @property
    def gain(self) -> float:
        """What rotated queries and keys are multiplied by."""
        if self.scaling != "yarn":
            return 1.0
        return 0.1 * math.log(self.factor) + 1.0 if self.attention is None else self.attention

    def frequencies(self, width: int) -> torch.Tensor:
        """By what angle each of the width/2 pairs turns from one position to the next, in float64.

        linear: all as many times slower (Chen et al. 2023, arXiv:2306.15595). llama3: only what turns slowly (Llama
        3.1). yarn: the same with other bounds (Peng et al. 2023, arXiv:2309.00071, section 3.2).
        """
        frequency = self.base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        if self.scaling is None:
            return frequency
        slow = frequency / self.factor
        if self.scaling == "linear":
            return slow
        if self.scaling == "llama3":
            turns = self.original * frequency / (2 * math.pi)  # in the original context
            kept = ((turns - LOW_FREQ) / (HIGH_FREQ - LOW_FREQ)).clamp(0, 1)
        else:
            first, last = (
                width * math.log(self.original / (beta * 2 * math.pi)) / (2 * math.log(self.base))
                for beta in (BETA_FAST, BETA_SLOW)
            )
            first, last = max(math.floor(first), 0), min(math.ceil(last), width - 1)
            pairs = torch.arange(width // 2, dtype=torch.float64)
            kept = 1 - ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
        return kept * frequency + (1 - kept) * slow


class Rotary(nn.Module):
    """Rotations by position (RoPE; Su et al. 2021, arXiv:2104.09864), half-split: i turns with i + width/2.

    Of heads wider than `width`, the numbers behind it stay as they are.
    """

    def __init__(self, n_positions: int, width: int, rope: Rope = Rope()) -> None:
        super().__init__()
        self.width = width
        sin, cos = _angles(n_positions, width, rope)
        self.register_buffer("sin", sin, persistent=False)  # (n_positions, width/2)
        self.register_buffer("cos", cos, persistent=False)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """Rotate (B, n_head, T, head_dim), whose first token stands at position `start`."""
        stop = start + x.shape[2]
        sin, cos = self.sin[start:stop].to(x.dtype), self.cos[start:stop].to(x.dtype)  # (T, width/2)
        if trains_on_cpu(x):
            return Rotation.apply(x, sin, cos)
        turning, still = (x, None) if x.shape[-1] == self.width else (x[..., : self.width], x[..., self.width :])
        left, right = turning.chunk(2, dim=-1)  # (B, n_head, T, width/2) each
        parts = [left * cos - right * sin, right * cos + left * sin]
        return torch.cat(parts if still is None else [*parts, still], dim=-1)


def _angles(n_positions: int, width: int, rope: Rope = Rope()) -> tuple[torch.Tensor, torch.Tensor]:
    """Sine and cosine of the angle of each pair at each position, times the gain; (n_positions, width/2) each."""
    if torch.get_default_device().type == "meta":  # where computing anything imports a compiler for seconds
        return torch.empty(n_positions, width // 2), torch.empty(n_positions, width // 2)
    # In float64, so that the table is the same to the last bit whoever computes it.
    angle = torch.outer(torch.arange(n_positions, dtype=torch.float64), rope.frequencies(width))
    return (rope.gain * angle.sin()).float(), (rope.gain * angle.cos()).float()
