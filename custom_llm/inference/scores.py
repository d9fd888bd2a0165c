"""How likely a model found each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Score(NamedTuple):
    """A token of a text.

    Attributes:
        token: its id.
        spelled: its bytes in UTF-8, maybe a part of a character; control tokens are written out.
        logprob: natural logarithm of its probability, before any sampling; None if nothing stood before it.
        top: the likeliest tokens in its place, likeliest first, as they are spelled and their logarithms.
    """

    token: int
    spelled: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...] = ()


def score_of(token: int, logits: np.ndarray, n_top: int, spell: Callable[[list[int]], bytes]) -> Score:
    """The score of a token that followed where a model computed `logits`, (n_vocab,)."""
    logprobs = log_softmax(logits)
    likeliest: list[int] = []
    if n_top:
        n_top = min(n_top, len(logprobs))
        likeliest = np.argpartition(-logprobs, n_top - 1)[:n_top].tolist()
        likeliest.sort(key=lambda other: (-logprobs[other], other))
    top = tuple((spell([other]), float(logprobs[other])) for other in likeliest)
    return Score(token, spell([token]), float(logprobs[token]), top)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
