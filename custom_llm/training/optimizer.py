"""AdamW as GPTs are trained with it, and the learning rate over time."""

from __future__ import annotations

import math

import torch
from torch import nn

WARMUP = 0.03  # share of the training in which the learning rate rises
FLOOR = 0.1  # share of the peak learning rate that is left at the end


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only (GPT-3, https://arxiv.org/abs/2005.14165, appendix B)."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    # One call for all parameters; on the CPU that is worth a tenth of a small model's step.
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def learning_rate_at(progress: float, peak: float) -> float:
    """Linear warm-up, then half a cosine down to FLOOR · peak (https://arxiv.org/abs/1608.03983).

    Args:
        progress: how much of the training is done, from 0 to 1, in steps or in time.

    >>> [round(learning_rate_at(p, 1.0), 2) for p in (0.0, 0.015, 0.03, 0.515, 1.0)]
    [0.02, 0.5, 1.0, 0.55, 0.1]
    """
    if progress < WARMUP:
        return peak * max(progress / WARMUP, 0.02)
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))
    return peak * (FLOOR + (1 - FLOOR) * cosine)
