"""How large a model is, by the headers of its files, before any of it is read."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from pathlib import Path

from custom_llm.export.gguf.whole import read_header

BYTES = 12  # of memory for a number: in float32, and twice what is written of it
VERSIONS = (2, 3)  # of GGUF, that its readers know


def check_fits(n_parameters: int, what: str = "reading it") -> None:
    """Raise ValueError where a model of so many parameters takes more memory than is free."""
    import psutil

    needed, free = BYTES * n_parameters, psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"{what} takes about {needed / 1e9:,.0f} GB of memory ({n_parameters / 1e6:,.0f} million parameters), and "
            f"{free / 1e9:,.1f} GB are free; take a smaller model, or close other programs"
        )


def numbers_in_safetensors(paths: Iterable[Path]) -> int:
    """How many numbers are in files of weights; ValueError where one is damaged, or does not end as it says."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{path.name} is damaged or not wholly there ({error}); get it again") from None
    return total


def numbers_in_gguf(path: Path) -> int:
    """How many numbers are in a GGUF file; ValueError where it is none that can be read here, or not wholly there."""
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8 or start[:4] != b"GGUF":
        raise ValueError("it is no GGUF file; get it again")
    little, big = (struct.unpack(f"{order}I", start[4:])[0] for order in "<>")
    if little not in VERSIONS:
        other = "it is for big-endian machines" if big in VERSIONS else f"it is of version {little} of GGUF"
        raise ValueError(f"{other}, which cannot be read here; get a little-endian file of version 3")
    try:
        n_numbers, n_bytes = read_header(path)
    except (struct.error, KeyError, ValueError, OverflowError, OSError):
        raise ValueError("its header is damaged; get it again") from None
    if n_bytes > path.stat().st_size:
        raise ValueError(f"it ends after {path.stat().st_size:,} of {n_bytes:,} bytes; get it again")
    return n_numbers
