"""Windows of text for next-token prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from custom_llm.data.ids import Ids
from custom_llm.data.token_file import Tokens
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.char import CharTokenizer

GENERAL_TEXT = Path(__file__).with_name("general.txt")  # of many kinds: what a model knows, it may forget in training
HELD_OUT, HELD_OUT_TOKENS = 0.1, 1 << 20  # share of the text, at its end, and how much of a long one
ROUNDS = 4  # of the shuffle's network
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
            x = self._permute(np.arange(start, min(start + BLOCK, self.n), dtype=np.uint64))
            while (outside := x >= self.n).any():
                x[outside] = self._permute(x[outside])
            yield from x.tolist()

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


class TextDataset(Dataset):
    """Every window of `block_size` tokens of a text, with the window one token later as its target.

    data: the token ids, of shape (n,), in any type of whole numbers, in memory or in a file; windows are int64.
    vocab_size, stoi, itos: the vocabulary, and token text to id and back.

    >>> dataset = TextDataset("hello world", block_size=5)
    >>> len(dataset), dataset.vocab_size
    (6, 8)
    >>> x, y = dataset[0]
    >>> "".join(dataset.itos[i] for i in y.tolist())
    'ello '
    """

    def __init__(self, text: str, block_size: int, tokenizer: Tokenizer | None = None) -> None:
        """The windows of `block_size` tokens of `text`, by default its characters (and no others) as tokens."""
        tokenizer = tokenizer or CharTokenizer.from_text(text, end_of_text=False)
        self._set(torch.from_numpy(tokenizer.encode(text)).long(), block_size, tokenizer)

    @classmethod
    def of_tokens(cls, tokens: Tokens, block_size: int) -> TextDataset:
        """The windows of an encoded text, which stays in its file."""
        dataset = cls.__new__(cls)
        dataset._set(tokens.ids, block_size, tokens.tokenizer)
        return dataset

    def _set(self, data: torch.Tensor | Ids, block_size: int, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.block_size = block_size
        self.vocab_size = tokenizer.vocab_size
        self.itos = dict(enumerate(tokenizer.tokens))
        self.stoi = {token: i for i, token in self.itos.items()}
        self.data = data

    def split_off(self, share: float, at_most: int | None = None) -> torch.Tensor:
        """Cut the last `share` of the tokens off (at least two, at most `at_most`) and return them, int64 (n,)."""
        cut = max(2, int(len(self.data) * share))
        keep = max(0, len(self.data) - min(cut, at_most or cut))
        rest, self.data = self.data[keep:], self.data[:keep]
        return torch.as_tensor(np.asarray(rest)).long()

    def __len__(self) -> int:
        return max(0, len(self.data) - self.block_size)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Window `index` and its target, each of shape (block_size,)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = index % len(self)
        window = self._windows([start])[0]
        return window[:-1], window[1:]

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A whole batch in one gather: (B, block_size) and (B, block_size). PyTorch's DataLoader calls this, too.

        Its default collation stacks the pair to (2, B, block_size), which unpacks just as well.
        """
        windows = self._windows(indices)
        return windows[:, :-1], windows[:, 1:]

    def _windows(self, starts: Sequence[int]) -> torch.Tensor:
        """The windows with their targets, int64 (B, block_size + 1)."""
        size = self.block_size + 1
        if isinstance(self.data, Ids):
            return torch.from_numpy(self.data.windows(starts, size))
        return self.data[torch.as_tensor(starts).unsqueeze(1) + torch.arange(size)].long()


class WindowSampler(Sampler[int]):
    """Window starts for one epoch: `stride` apart, from a new random phase each epoch, in random order.

    With stride = block_size an epoch reads every token once; with stride 1 it reads every window, as the tutorial
    did, which takes block_size times as long.
    """

    def __init__(self, dataset: TextDataset, stride: int, generator: torch.Generator) -> None:
        self.n_windows, self.stride, self.generator = len(dataset), stride, generator
        self._before = generator.get_state()  # before the latest epoch started
        self._skip = 0

    def __len__(self) -> int:
        """Windows of an epoch with phase 0, which has the most."""
        return -(-self.n_windows // self.stride)

    def __iter__(self) -> Iterator[int]:
        self._before, skip, self._skip = self.generator.get_state(), self._skip, 0
        phase = torch.randint(min(self.stride, self.n_windows), (), generator=self.generator).item()
        order = Shuffle(-(-(self.n_windows - phase) // self.stride), self.generator)
        return (phase + place * self.stride for place in order.starting_at(skip))

    def state_dict(self, n_read: int) -> dict[str, Any]:
        """Where the reading stands after `n_read` windows of the latest epoch; 0 if that is over or not started."""
        return {"before": self._before if n_read else self.generator.get_state(), "read": n_read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration resumes there."""
        self.generator.set_state(state["before"])
        self._skip = state["read"]


class WindowLoader:
    """Batches (x, y), each of shape (≤ batch_size, block_size), in an order fixed by `seed`; each pass is an epoch.

    Of `world_size` processes, this one reads batch `rank`, `rank + world_size`, … In the places of the others' it has
    tensors on the meta device, which have a shape and no content.
    """

    def __init__(
        self, dataset: TextDataset, batch_size: int, stride: int | None, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.dataset, self.batch_size, self._rank, self._world_size = dataset, batch_size, rank, world_size
        self.sampler = WindowSampler(dataset, stride or dataset.block_size, torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order, place = iter(self.sampler), 0
        while windows := list(islice(order, self.batch_size)):
            if place % self._world_size == self._rank:
                yield self.dataset.__getitems__(windows)
            else:
                unread = torch.empty(len(windows), self.dataset.block_size, dtype=torch.long, device="meta")
                yield unread, unread
            place += 1
