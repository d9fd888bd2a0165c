"""The optimizers of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from custom_llm.config.training import TrainConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.training.optim.adamw import AdamW, Optimizer
from custom_llm.training.optim.muon import Muon

BETAS = (0.9, 0.95)
# What is asked for is a learning rate on AdamW's scale. Beside Muon, models learn most with so many times that: Muon's
# measures singular values and no single weights, and the AdamW beside it bears more than one that moves all weights.
# So 0.0003 is right for a thousand steps and more, and 0.0005 to 0.001 for a few hundred (docs/training.md).
MUON, BESIDE_MUON = 50.0, 20.0


def make_optimizers(model: GPTLanguageModel, config: TrainConfig) -> list[Optimizer]:
    """The optimizers of `config.optimizer`, to be given a rate by `set_learning_rate`.

    `muon` is Muon for the matrices inside the blocks, experts' as well, and AdamW for the rest: embeddings, output
    layer, norms, biases, and the routers of experts, whose rows are experts to choose among, as the output layer's are
    tokens, and no map between two layers. `adamw` is AdamW for all. Only the matrices inside the blocks decay.
    Parameters that do not require a gradient are left alone.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inside = [
        p for name, p in trained.items()
        if name.startswith("blocks.") and p.dim() > 1 and not name.endswith("router.weight")
    ]  # fmt: skip
    matrices = set(inside)  # by identity
    others = [p for p in trained.values() if p not in matrices]
    return OPTIMIZERS[config.optimizer](inside, others, config)


def _muon(inside: list[torch.Tensor], others: list[torch.Tensor], c: TrainConfig) -> list[Optimizer]:
    matrices = [dict(params=inside, scale=MUON)]
    rest = [dict(params=others, scale=BESIDE_MUON)]
    adamw = AdamW(rest, lr=BESIDE_MUON * c.learning_rate, betas=BETAS, weight_decay=0.0)
    return [Muon(matrices, lr=MUON * c.learning_rate, weight_decay=c.weight_decay), adamw]


def _adamw(inside: list[torch.Tensor], others: list[torch.Tensor], c: TrainConfig) -> list[Optimizer]:
    groups = [dict(params=inside, weight_decay=c.weight_decay), dict(params=others, weight_decay=0.0)]
    groups = [dict(group, scale=1.0) for group in groups]
    return [AdamW(groups, lr=c.learning_rate, betas=BETAS)]


OPTIMIZERS: dict[str, Callable[[list, list, TrainConfig], list[Optimizer]]] = {"muon": _muon, "adamw": _adamw}


def set_learning_rate(optimizers: Iterable[Optimizer], learning_rate: float) -> None:
    """Use `learning_rate`, on AdamW's scale, from the next step on."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * learning_rate
