"""What tensors a GGUF file holds, without the seconds that `gguf.GGUFReader` takes for a vocabulary.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

# Type of a value in the metadata → bytes it takes.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class TensorInfo:
    """One tensor; `shape` has the length of a row first."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType

    @property
    def n_bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // block * size


def read_tensors(path: Path) -> list[TensorInfo]:
    """The tensors of a GGUF file that is whole."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        _magic, _version, n_tensors, n_values = reader.take("<IIQQ")
        for _ in range(n_values):
            reader.string()
            reader.skip(*reader.take("<I"))
        tensors = []
        for _ in range(n_tensors):
            name = reader.string().decode()
            shape = reader.take(f"<{reader.take('<I')[0]}Q")
            kind, _offset = reader.take("<IQ")
            tensors.append(TensorInfo(name, shape, GGMLQuantizationType(kind)))
        return tensors


class _Reader:
    """A place in a file that moves on as values are taken from there."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = 0

    def take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self.data, self.place)
        self.place += struct.calcsize(layout)
        return values

    def string(self) -> bytes:
        (length,) = self.take("<Q")
        self.place += length
        return self.data[self.place - length : self.place]

    def skip(self, kind: int) -> None:
        """A value of the metadata."""
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            item, length = self.take("<IQ")
            if item in SIZES:
                self.place += length * SIZES[item]
                return
            for _ in range(length):
                self.skip(item)
        else:
            self.place += SIZES[kind]
