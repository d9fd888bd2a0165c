"""What a GGUF file says before its weights, read at once (`gguf.GGUFReader` takes 20 seconds for 262,144 tokens).

The form: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from custom_llm.common.errors import UserError, describe_os_error

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # of `struct`
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor is in a file."""

    shape: tuple[int, ...]  # as PyTorch has it: rows first
    kind: int  # of GGML's types (`gguf.GGMLQuantizationType`)
    start: int  # byte of the file


@dataclass(frozen=True)
class Header:
    """The metadata of a file (numbers, texts, and lists of them) and the places of its tensors, by name."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorPlace]


def read_header(path: str | Path) -> Header:
    """The header of a GGUF file. Raises UserError where it cannot be read, is none, or is damaged."""
    try:
        with Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            if content[:4] != b"GGUF":
                raise UserError(f"{path}: not a GGUF file; give one that ends in .gguf")
            return _Reader(content).header()
    except OSError as error:
        raise UserError(f"cannot read {describe_os_error(error)}") from None
    except (struct.error, KeyError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise UserError(f"{path}: a damaged GGUF file ({error}); get it anew") from None


class _Reader:
    def __init__(self, content: mmap) -> None:
        self._content, self._place = content, 4

    def header(self) -> Header:
        version, n_tensors, n_values = self._numbers("IQQ")
        if version not in VERSIONS:
            raise ValueError(f"version {version}, where {' and '.join(map(str, VERSIONS))} are known")
        metadata = {}
        for _ in range(n_values):
            key = self._text()
            metadata[key] = self._value(*self._numbers("I"))
        places = {}
        for _ in range(n_tensors):
            name = self._text()
            [n_dims] = self._numbers("I")
            *shape, kind, start = self._numbers(f"{n_dims}QIQ")
            places[name] = (tuple(reversed(shape)), kind, start)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise ValueError(f"general.alignment {alignment!r}")
        first = math.ceil(self._place / alignment) * alignment
        tensors = {name: TensorPlace(shape, kind, first + start) for name, (shape, kind, start) in places.items()}
        return Header(metadata, tensors)

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            return self._numbers(SCALARS[kind])[0]
        kind, n = self._numbers("IQ")
        if n > len(self._content):
            raise ValueError(f"a list of {n:,} values")
        if kind in SCALARS:
            return list(self._numbers(f"{n}{SCALARS[kind]}"))
        return [self._value(kind) for _ in range(n)]

    def _text(self) -> str:
        [n] = self._numbers("Q")
        start, self._place = self._place, self._place + n
        if self._place > len(self._content):
            raise ValueError("it ends in the middle of a text")
        return self._content[start : self._place].decode("utf-8", "replace")

    def _numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form := f"<{form}", self._content, self._place)
        self._place += struct.calcsize(form)
        return values
