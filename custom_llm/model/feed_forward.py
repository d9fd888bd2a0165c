"""Feed-forward layers: two matrices with an activation between them, or three where one of them is a gate."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.model.layers import Dropout


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU in its tanh form (arXiv:1606.08415), because that is the one llama.cpp computes."""
    return F.gelu(x, approximate="tanh")


def relu2(x: torch.Tensor) -> torch.Tensor:
    """Squared ReLU (So et al. 2021, arXiv:2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": gelu,
    "relu": F.relu,
    "relu2": relu2,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
    "gelu_erf": F.gelu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "mish": F.mish,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
# name of a feed-forward layer with a gate → the activation of the gate
GATES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"swiglu": F.silu, "geglu": gelu, "reglu": F.relu}


class Activation(nn.Module):
    """An activation by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._function = {**ACTIVATIONS, **GATES}[name]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(x)

    def extra_repr(self) -> str:
        return self.name


class GatedFeedForward(nn.Module):
    """down(activation(gate(x)) · up(x)) (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, n_embd: int, up_dim: int, non_linearity: str, dropout: float, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(n_embd, up_dim, bias)
        self.up = nn.Linear(n_embd, up_dim, bias)
        self.down = nn.Linear(up_dim, n_embd, bias)
        self.activation = Activation(non_linearity)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, n_embd) → (…, n_embd), by way of (…, up_dim)"""
        return self.dropout(self.down(self.activation(self.gate(x)) * self.up(x)))


def make_feed_forward(n_embd: int, up_dim: int, non_linearity: str, dropout: float, bias: bool) -> nn.Module:
    """The layer for an activation: gated if its name says so, else the plain one of GPT-2 (parts 0, 1, 2 and 3)."""
    if non_linearity in GATES:
        return GatedFeedForward(n_embd, up_dim, non_linearity, dropout, bias)
    return nn.Sequential(
        nn.Linear(n_embd, up_dim, bias), Activation(non_linearity), nn.Linear(up_dim, n_embd, bias), Dropout(dropout)
    )
