"""Sizes of a model for a text, a machine and a time, found by trying on the bundled stories (benchmarks/sizes.py)."""

from __future__ import annotations

from typing import Any

# (minutes × cores from which on it is the best, layers, width, heads)
LADDER = ((0, 2, 64, 4), (2, 3, 96, 4), (12, 4, 128, 4), (60, 6, 192, 6), (240, 8, 256, 8), (1200, 10, 384, 8))
USEFUL_CORES = 8  # a small model gains little from more
BATCH_SIZE = 8
BLOCK_SIZE = 256  # what llama.cpp rounds contexts up to, so that other programs use the very context that was trained
WINDOWS_AT_LEAST = 20  # in a text; a shorter one gets a shorter context
CHARACTERS_READ_PER_MINUTE_AND_CORE = 700_000  # by the smallest model
READ_OFTEN = 20  # epochs from which on a model memorises and needs dropout
# Bytes from which on byte pairs learnt more of a text than characters did, and the best number of them (docs/data.md).
LONG_TEXT, BYTE_PAIRS = 1_000_000, 4096


def choose_sizes(n_characters: int, minutes: float, n_cores: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options for `llm_model.py` and for `train_llm.py`: the model that learns most from a text in the time.

    Bigger ones learn more from each character, but read fewer of them. One with more parameters than the text has
    characters would memorise it.
    """
    budget = minutes * min(n_cores, USEFUL_CORES)
    fitting = [rung[1:] for rung in LADDER if rung[0] <= budget and 12 * rung[1] * rung[2] ** 2 <= n_characters]
    n_layer, n_embd, n_head = fitting[-1] if fitting else LADDER[0][1:]
    block_size = max(8, min(BLOCK_SIZE, n_characters // WINDOWS_AT_LEAST))
    epochs = budget * CHARACTERS_READ_PER_MINUTE_AND_CORE / n_characters
    dropout = 0.1 if epochs > READ_OFTEN else 0.0
    model = dict(n_embd=n_embd, n_head=n_head, n_layer=n_layer, block_size=block_size, dropout=dropout)
    return model, dict(batch_size=BATCH_SIZE, learning_rate=round(0.008 / n_embd**0.5, 4))
