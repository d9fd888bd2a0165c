"""The optimizers of a training, and the learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from custom_llm.model import GPTLanguageModel
from custom_llm.training.muon import Muon

WARMUP = 0.03  # share of the training in which the learning rate rises
FLOOR = 0.1  # share of the peak learning rate that is left at the end


def make_optimizers(model: GPTLanguageModel, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, experts' as well; AdamW for the rest.

    The rest are embeddings, output layer, norms, biases, and the routers of experts: the rows of those are experts to
    choose among, as the output layer's are tokens, and no map between two layers.

    Both on the scale of AdamW's learning rate. AdamW decays nothing here.
    """
    inside = [p for name, p in model.blocks.named_parameters() if p.dim() > 1 and not name.endswith("router.weight")]
    matrices = set(inside)  # by identity
    others = [p for p in model.parameters() if p not in matrices]
    adamw = torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [Muon(inside, lr=learning_rate), adamw]


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


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], learning_rate: float) -> None:
    """Use `learning_rate` from the next step on."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
