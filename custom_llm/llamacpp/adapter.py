"""LoRA adapters as a person names them: GGUF files, and how strongly each counts."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import NamedTuple

# How the metadata of an adapter say that it is one: general.type, a string (8), "adapter".
_TYPE = struct.pack("<Q", 12) + b"general.type" + struct.pack("<IQ", 8, 7) + b"adapter"
_HEADER = 1 << 16  # bytes in which it is looked for; it stands at the beginning


class Lora(NamedTuple):
    """An adapter to apply: its output is added to that of the model's matrices, times `scale`."""

    path: Path
    scale: float = 1.0


def parse_lora(typed: str) -> Lora:
    r"""FILE or FILE:SCALE, where FILE may have colons, too. Raises ValueError where SCALE is no finite number.

    >>> parse_lora("a.lora.gguf:0.5").scale, parse_lora(r"C:\a.lora.gguf").scale
    (0.5, 1.0)
    """
    name, colon, end = typed.rpartition(":")
    is_drive = len(name) == 1 and name.isalpha()  # C:\a.gguf, C:a.gguf
    if not colon or _is_file(typed) or is_drive or re.search(r"[/\\]", end):
        name, end = typed, "1"
    if not name:
        raise ValueError(f"{typed!r} names no file; give FILE or FILE:SCALE")
    try:
        scale = float(end.replace(",", "."))
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise ValueError(f"{typed!r}: the scale {end!r} is not a number; give FILE:0.5, or FILE alone for 1")
    return Lora(Path(name), scale)


def is_adapter(path: Path) -> bool:
    """Whether a file is a GGUF adapter, which cannot write by itself."""
    try:
        with path.open("rb") as file:
            return _TYPE in file.read(_HEADER)
    except OSError:
        return False


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # a name that cannot be one
        return False
