"""How large a model is, by the headers of its files, before any of it is read."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from pathlib import Path

from gguf import GGML_QUANT_SIZES

from custom_llm.common.gguf import VERSIONS, read_header

BYTES = 12  # of memory for a number: in float32, and twice what is written of it


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
            with safe_open(path, "np") as file:  # torch would claim memory for all of it
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{path.name} is damaged or not wholly there ({error}); get it again") from None
    return total


def numbers_in_gguf(path: Path) -> int:
    """How many numbers are in a GGUF file; ValueError where it is none that can be read here, or not wholly there."""
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8 or start[:4] != b"GGUF":
        raise ValueError("it is no GGUF file, or an empty one; get it again")
    if struct.unpack(">I", start[4:])[0] in VERSIONS:
        raise ValueError("it is for big-endian machines; get one for little-endian ones, which is the usual kind")
    n_numbers = 0
    for name, place in read_header(path).tensors.items():
        n = math.prod(place.shape)
        of_block, n_bytes = GGML_QUANT_SIZES.get(place.kind, (0, 0))
        if not of_block:
            raise ValueError(f"{name} is in a type ({place.kind}) that is not known here; get the file in another type")
        if n % of_block or place.start + n // of_block * n_bytes > path.stat().st_size:
            raise ValueError(f"it ends before {name} does; get it again")
        n_numbers += n
    return n_numbers
