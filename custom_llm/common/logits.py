"""A long text as windows that a model can read at once, and what it finds likely there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

Tokens = TypeVar("Tokens", bound=Sequence)
TOKENS_PER_BATCH, LOGITS_PER_BATCH = 4096, 1 << 26  # 256 MB


def windows(tokens: Tokens, size: int) -> Iterator[tuple[Tokens, Tokens]]:
    """Windows side by side: what is read, and what follows each of its tokens.

    Each token but the first is to be predicted once, by those before it in its window; so a loss is the mean over all
    tokens of a text, and the same wherever it is computed.

    >>> list(windows("abcdef", 3))
    [('abc', 'bcd'), ('de', 'ef')]
    """
    for start in range(0, len(tokens) - 1, size):
        stop = min(start + size, len(tokens) - 1)
        yield tokens[start:stop], tokens[start + 1 : stop + 1]


def windows_per_batch(size: int, n_vocab: int) -> int:
    """How many windows of `size` tokens a model reads side by side, so that their logits find room in memory."""
    return max(1, min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // n_vocab) // size)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
