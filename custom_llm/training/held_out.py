"""The loss on held-out text."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from custom_llm.common.logits import windows_per_batch
from custom_llm.model import GPTLanguageModel
from custom_llm.training.distributed.processes import ALONE, Processes


@torch.no_grad()
def held_out_loss(model: GPTLanguageModel, data: torch.Tensor, processes: Processes = ALONE) -> float:
    """Mean cross-entropy in nats over every token but the first of int64 (n,), n ≥ 2, read in windows side by side.

    The processes share the work: all of them call the model equally often, and get the same loss.
    """
    was_training, block_size = model.training, model.config.block_size
    model.eval()
    device = next(model.parameters()).device
    whole = (len(data) - 1) // block_size * block_size  # tokens in windows of full length
    inputs, targets = data[:whole].view(-1, block_size), data[1 : whole + 1].view(-1, block_size)
    rows = windows_per_batch(block_size, model.config.vocab_size)
    batches = list(zip(inputs.split(rows), targets.split(rows), strict=True))
    if whole < len(data) - 1:
        batches.append((data[None, whole:-1], data[None, whole + 1 :]))
    total = 0.0
    for start in range(0, len(batches), processes.size):
        mine = start + processes.rank
        x, y = batches[min(mine, len(batches) - 1)]
        logits, _ = model(x.to(device))
        if mine < len(batches):
            total += F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten(), reduction="sum").item()
    model.train(was_training)
    (total,) = processes.sum(total)
    return total / (len(data) - 1)
