"""Where a token stands: tables that are added to the embeddings, and rotations of queries and keys."""

from __future__ import annotations

import torch
from torch import nn

BASE = 10_000.0


def sinusoids(n_positions: int, width: int) -> torch.Tensor:
    """The table of Vaswani et al. 2017 (arXiv:1706.03762, section 3.5), (n_positions, width): sin, cos, sin, cos, …"""
    table = torch.empty(n_positions, width)
    table[:, 0::2], table[:, 1::2] = _angles(n_positions, width)
    return table


class Sinusoids(nn.Module):
    """A fixed table of positions, called like an embedding; it is not part of the weights."""

    def __init__(self, n_positions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(n_positions, width), persistent=False)

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
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def _angles(n_positions: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sine and cosine of position / BASE^(2i/width), each (n_positions, width/2)."""
    if torch.get_default_device().type == "meta":  # where computing anything imports a compiler for seconds
        return torch.empty(n_positions, width // 2), torch.empty(n_positions, width // 2)
    # In float64, so that the table is the same to the last bit whoever computes it.
    frequency = BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(n_positions, dtype=torch.float64), frequency)
    return angle.sin().float(), angle.cos().float()
