"""Whether a GGUF file was written to its end, by its header (`gguf` takes seconds to read that of 50,000 tokens)."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

from gguf import GGML_QUANT_SIZES, GGUFValueType

from custom_llm.common.errors import UserError

ALIGNMENT = 32  # of the data, in all files that are written here
WIDTHS = {
    **dict.fromkeys((GGUFValueType.UINT8, GGUFValueType.INT8, GGUFValueType.BOOL), 1),
    **dict.fromkeys((GGUFValueType.UINT16, GGUFValueType.INT16), 2),
    **dict.fromkeys((GGUFValueType.UINT32, GGUFValueType.INT32, GGUFValueType.FLOAT32), 4),
    **dict.fromkeys((GGUFValueType.UINT64, GGUFValueType.INT64, GGUFValueType.FLOAT64), 8),
}


def check_whole(path: Path, name: Path) -> None:
    """Raise UserError where the file at `path`, which is to be called `name`, is shorter than it says.

    On a full disk NumPy does not tell of the last few thousand bytes, which it writes when it closes a file.
    """
    try:
        with path.open("rb") as file:
            is_whole = _size(file) <= path.stat().st_size
    except (struct.error, KeyError, ValueError):
        is_whole = False
    if not is_whole:
        raise UserError(f"cannot write {name}: it ends too early; is the disk full?")


def _size(file: BinaryIO) -> int:
    """The bytes that a file must have at least."""
    _, _, n_tensors, n_values = _read(file, "4sIQQ")
    for _ in range(n_values):
        _skip(file, GGUFValueType.STRING)
        _skip(file, _read(file, "I")[0])
    ends = [0]
    for _ in range(n_tensors):
        _skip(file, GGUFValueType.STRING)
        [n_dims] = _read(file, "I")
        *shape, kind, start = _read(file, f"{n_dims}QIQ")
        n_values, n_bytes = GGML_QUANT_SIZES[kind]
        ends.append(start + math.prod(shape) // n_values * n_bytes)
    return -(-file.tell() // ALIGNMENT) * ALIGNMENT + max(ends)


def _skip(file: BinaryIO, kind: int) -> None:
    """Read over a value."""
    if kind == GGUFValueType.STRING:
        file.seek(_read(file, "Q")[0], 1)
    elif kind == GGUFValueType.ARRAY:
        kind, n = _read(file, "IQ")
        if kind in WIDTHS:
            file.seek(n * WIDTHS[kind], 1)
        else:
            for _ in range(n):
                _skip(file, kind)
    else:
        file.seek(WIDTHS[kind], 1)


def _read(file: BinaryIO, form: str) -> tuple:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))
