"""Initial weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

STD = 0.02
INTO_RESIDUAL = ("attn.proj.weight", "ffn.2.weight", "down.weight", "ffn.down", "shared.2.weight")


@contextlib.contextmanager
def no_default_init() -> Iterator[None]:
    """Matrices of modules made inside are left as memory happens to be, for `init_weights` or a checkpoint to fill.

    PyTorch's own initialisation would be thrown away, and on the meta device it imports a compiler for seconds.
    """
    originals = {kind: kind.reset_parameters for kind in (nn.Linear, nn.Embedding)}
    try:
        for kind in originals:
            kind.reset_parameters = lambda module: None
        yield
    finally:
        for kind, original in originals.items():
            kind.reset_parameters = original


def init_weights(model: nn.Module, n_layer: int) -> None:
    """GPT-2's initialisation: normal, and what is added to the residual stream is scaled down by its depth."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            depth = 2 * n_layer if name.endswith(INTO_RESIDUAL) else 1
            nn.init.normal_(parameter, std=STD / depth**0.5)
