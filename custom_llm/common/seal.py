"""A GGUF file's own digest, so that a copy that went wrong is noticed and not believed.

The metadata hold, under KEY, how long the file is and the SHA-256 of all its bytes but for these. A file of another
length was made from ours, such as by llama-quantize, which copies metadata: of it nothing is known.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import BinaryIO

from custom_llm.common.errors import UserError
from custom_llm.common.steps import step

KEY = "custom_llm.seal"
LENGTH = 16  # characters
EMPTY = " " * (LENGTH + 1 + 64)  # where the seal will stand
_START = struct.pack("<Q", len(KEY)) + KEY.encode() + struct.pack("<IQ", 8, len(EMPTY))  # 8: a string
HEADER = 1 << 24  # bytes in which it is looked for


def write_seal(path: Path) -> None:
    """Seal a finished file that has EMPTY, or the seal of another file, under KEY; others stay as they are."""
    with path.open("r+b") as file:
        start, _, seal = _read(file)
        if start:
            file.seek(start)
            file.write(seal)


def check_seal(path: Path, most_bytes: int | None = None) -> None:
    """Raise UserError where a file is not what was written. It takes 0.1 s for 100 MB.

    Files larger than `most_bytes`, and those that cannot be read, pass.
    """
    try:
        if most_bytes is not None and path.stat().st_size > most_bytes:
            return
        with path.open("rb") as file:
            start, found, seal = _read(file)
    except OSError:
        return
    if start and found[:LENGTH] == seal[:LENGTH] and found != seal:
        raise UserError(
            f"{path} is damaged: it is not what was written; copy it again from where it is whole, or write it again "
            f"with {step('convert_to_gguf')}"
        )


def _read(file: BinaryIO) -> tuple[int, bytes, bytes]:
    """Where a file's seal stands (0: nowhere), what stands there, and what should."""
    part = file.read(HEADER)
    found = part.find(_START)
    if found < 0:
        return 0, b"", b""
    start = found + len(_START)
    view, n_bytes = memoryview(part), len(part)
    digest = hashlib.sha256(view[:start])
    digest.update(view[start + len(EMPTY) :])
    seal = part[start : start + len(EMPTY)]
    while part := file.read(1 << 20):
        digest.update(part)
        n_bytes += len(part)
    return start, seal, f"{n_bytes:{LENGTH}} {digest.hexdigest()}".encode()
