"""One transformer block: attention, then a feed-forward layer, each normalised first and added to its input."""

from __future__ import annotations

import torch
from torch import nn

from custom_llm.model.attention import MultiHeadSelfAttention

# GELU in its tanh form, because that is the one llama.cpp computes.
ACTIVATIONS = {"gelu": lambda: nn.GELU(approximate="tanh"), "relu": nn.ReLU}


class TransformerBlock(nn.Module):
    """The pre-norm block of GPT-2 (Radford et al. 2019)."""

    def __init__(self, n_embd: int, n_head: int, block_size: int, dropout: float, non_linearity: str = "gelu") -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(n_embd)
        self.attn = MultiHeadSelfAttention(n_embd, n_head, block_size, dropout)
        self.ln2 = nn.LayerNorm(n_embd)
        self.ffn = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd),
            ACTIVATIONS[non_linearity](),
            nn.Linear(4 * n_embd, n_embd),
            nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd)"""
        x = x + self.attn(self.ln1(x))
        return x + self.ffn(self.ln2(x))
