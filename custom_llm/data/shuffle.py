"""A random order of any length in constant memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

ROUNDS = 4
BLOCK = 4096  # places computed at a time


class Shuffle:
    """The numbers below `n`, each once, in an order that `generator` chooses.

    A Feistel network permutes the numbers below the next power of four; those that are not below `n` are sent through
    it until they are (Black & Rogaway, "Ciphers with arbitrary finite domains", 2002). A list of the order would take
    eight bytes for each window of the text, which is more than the text itself where windows overlap.

    >>> sorted(Shuffle(10, torch.Generator().manual_seed(0)))
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n = n
        self._bits = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))  # of each half
        self._mask = np.uint64((1 << int(self._bits)) - 1)
        self._keys = torch.randint(2**62, (ROUNDS,), generator=generator).numpy().astype(np.uint64)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return self.starting_at(0)

    def starting_at(self, place: int) -> Iterator[int]:
        """The order from a place on, found at once."""
        for start in range(place, self.n, BLOCK):
            yield from self._places(start, min(start + BLOCK, self.n)).tolist()

    def _places(self, start: int, end: int) -> np.ndarray:
        """What stands at the places from `start` to `end`."""
        x = self._permute(np.arange(start, end, dtype=np.uint64))
        while (outside := x >= self.n).any():
            x[outside] = self._permute(x[outside])
        return x

    def _permute(self, x: np.ndarray) -> np.ndarray:
        left, right = x >> self._bits, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return (left << self._bits) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """64 bits in which each depends on all of x (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
