"""How well a model predicts a text: loss, perplexity, bits per byte, and how often its likeliest token was the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.common.logits import windows

# Windows of token ids, each read from its beginning → for all their tokens in order the logarithms of probabilities of
# what follows, (t, n_vocab) float64 at a time.
LogProbs = Callable[[Iterable[Sequence[int]]], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Quality:
    """What a model made of a text."""

    tokens: int  # that were to be predicted: all of the text but the first
    n_bytes: int  # of these tokens in UTF-8
    nats: float  # sum of -log p of these tokens
    n_top1: int  # how many of them were the model's likeliest
    seconds: float  # that it took

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """Among how many equally likely tokens a guess would be as hard."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """By which models with different tokens compare: what is left of 8 bits when the model compresses the text."""
        return self.nats / math.log(2) / self.n_bytes

    @property
    def accuracy(self) -> float:
        """Share of tokens that were the model's likeliest."""
        return self.n_top1 / self.tokens

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def measure(
    name: str, logprobs: LogProbs, ids: Sequence[int], size: int, n_bytes: int,
    on_tokens: Callable[[int], object] = lambda n: None,
) -> Quality:  # fmt: skip
    """The quality of a model on a text of at least two tokens, read in windows of `size` tokens side by side.

    name: how an error calls the model. n_bytes: of ids[1:] in UTF-8. on_tokens: called with the number of tokens done
    so far. Raises UserError when the model computes nan.
    """
    targets = np.asarray(ids[1:])
    done, n_top1, nats = 0, 0, 0.0
    start = perf_counter()
    for part in logprobs(inputs for inputs, _ in windows(ids, size)):  # the inputs of all windows are ids[:-1]
        expected = targets[done : done + len(part)]
        nats -= float(part[np.arange(len(part)), expected].sum())
        n_top1 += int((part.argmax(-1) == expected).sum())
        done += len(part)
        on_tokens(done)
    if not math.isfinite(nats):
        raise UserError(f"{name}: the model computes {nats}; its training diverged, train it again")
    return Quality(done, n_bytes, nats, n_top1, perf_counter() - start)
