"""What attention remembers of the tokens it has read, so that writing one more token reads one token and not all."""

from __future__ import annotations

import torch


class LayerCache:
    """The tensors of one layer, grown along time: keys and values, or the latents they are made from.

    Each is (B, n_kv_heads, T, width); room for all of them is taken at the first call.
    """

    def __init__(self, n_positions: int) -> None:
        self.n_positions = n_positions
        self.length = 0  # positions held
        self._tensors: tuple[torch.Tensor, ...] = ()

    def append(self, *new: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take in the tensors of T new positions and return those of all positions so far."""
        if not self._tensors:
            self._tensors = tuple(x.new_empty(*x.shape[:2], self.n_positions, x.shape[3]) for x in new)
        stop = self.length + new[0].shape[2]
        for held, x in zip(self._tensors, new, strict=True):
            held[:, :, self.length : stop] = x
        self.length = stop
        return tuple(held[:, :, :stop] for held in self._tensors)

    def clear(self) -> None:
        """Forget everything, and keep the room."""
        self.length = 0


class Cache:
    """One `LayerCache` for every layer of a model."""

    def __init__(self, n_layer: int, n_positions: int) -> None:
        self.layers = [LayerCache(n_positions) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        return self.layers[0].length

    def clear(self) -> None:
        for layer in self.layers:
            layer.clear()
