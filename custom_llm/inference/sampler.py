"""Which token comes next, in NumPy: what llama.cpp's chain of samplers chooses, without llama.cpp.

Each sampler leaves some of the candidates, in this order: biases and penalties change logits, top_k, top_p and min_p
leave out what is unlikely, temp makes the rest more or less alike, and a random number picks one. Numbers are float32
where llama.cpp's are, and the random ones are those of std::mt19937, so a seed gives the same text.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from custom_llm.config.sampling import PENALTY_LAST_N, SMALLEST_TEMP, Sampling

DRAWN = 64  # random numbers at a time, which is quicker than each alone


class Sampler:
    """Chooses the tokens of one text.

    >>> sampler = Sampler(Sampling(temp=1, top_k=2, top_p=1, min_p=0, seed=0))
    >>> sampler.candidates(np.log([0.1, 0.6, 0.3]))
    (array([1, 2]), array([0.66666667, 0.33333333]))
    """

    def __init__(self, sampling: Sampling, logit_bias: Mapping[int, float] | None = None) -> None:
        """sampling: with a seed and without a grammar. logit_bias: token → what is added to its logit; -inf bans it."""
        self._bias = logit_bias or {}
        self._settings = sampling
        self._temp, self._top_p, min_p = map(np.float32, (sampling.temp, sampling.top_p, sampling.min_p))
        self._min_difference = np.log(min_p) if min_p > 0 else None  # of a logit to the highest
        self._latest: deque[int] = deque(maxlen=PENALTY_LAST_N)
        self._random = _random_numbers(sampling.seed)

    def accept(self, tokens: Sequence[int]) -> None:
        """Take note of tokens that were read, not sampled: the penalties look back at them too."""
        self._latest.extend(tokens[-PENALTY_LAST_N:])

    def close(self) -> None:
        """Nothing is held that Python does not free."""

    def choose(self, logits: np.ndarray) -> int:
        """Choose a token by logits of shape (n_vocab,)."""
        tokens, probabilities = self.candidates(logits)
        if self._settings.temp >= SMALLEST_TEMP:
            reached = probabilities.cumsum()
            place = reached.searchsorted(reached[-1] * next(self._random))
            token = int(tokens[min(place, len(tokens) - 1)])
        else:
            token = int(tokens[0])
        self._latest.append(token)
        return token

    def candidates(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that remain and their probabilities, (n,) each, in the order in which they are drawn from."""
        settings = self._settings
        logits = np.array(logits, np.float32)
        if self._bias:
            logits[[*self._bias]] += np.array([*self._bias.values()], np.float32)
        self._penalize(logits)
        if settings.temp < SMALLEST_TEMP:
            return np.array([logits.argmax()]), np.ones(1)
        if settings.top_k or settings.top_p < 1:
            tokens = _likeliest(logits, settings.top_k or len(logits))
            logits = logits[tokens]
        else:
            tokens = np.arange(len(logits))
        if self._top_p < 1:
            weights = np.exp(logits - logits[0])
            n = (weights / weights.sum()).cumsum().searchsorted(self._top_p) + 1
            tokens, logits = tokens[:n], logits[:n]
        if self._min_difference is not None:
            likely = logits >= logits.max() + self._min_difference
            tokens, logits = tokens[likely], logits[likely]
        logits = logits / self._temp
        weights = np.exp(logits - logits.max()).astype(np.float64)
        return tokens, weights / weights.sum()

    def _penalize(self, logits: np.ndarray) -> None:
        settings = self._settings
        repeat, frequency, presence = settings.repeat_penalty, settings.frequency_penalty, settings.presence_penalty
        if not self._latest or (repeat, frequency, presence) == (1, 0, 0):
            return
        counts = Counter(self._latest)
        tokens, times = np.array([*counts]), np.array([*counts.values()], np.float32)
        # To divide a negative logit, as the paper of this penalty (Keskar et al. 2019) does, would make it likelier.
        found = logits[tokens]
        found = np.where(found > 0, found / np.float32(repeat), found * np.float32(repeat))
        logits[tokens] = found - (times * np.float32(frequency) + np.float32(presence))


def _random_numbers(seed: int | None) -> Iterator[float]:
    """Numbers from 0 to 1 as std::uniform_real_distribution<double> makes them of std::mt19937(seed)."""
    generator = np.random.RandomState(seed)  # NumPy's newer ones are seeded otherwise
    while True:
        low, high = generator.randint(0, 2**32, (DRAWN, 2), np.uint32).T
        yield from ((low + high * 2.0**32) / 2.0**64).tolist()


def _likeliest(logits: np.ndarray, n: int) -> np.ndarray:
    """The `n` tokens with the highest logits, likeliest first."""
    n_left_out = max(0, len(logits) - n)
    tokens = logits.argpartition(n_left_out)[n_left_out:]
    return tokens[(-logits[tokens]).argsort()]
