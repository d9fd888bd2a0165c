"""What torch.save writes: values in a zip archive, checked before they are believed, with a label of ours.

The archive has a checksum of every part, and torch.load looks at none: a byte that was changed on a disk or on the way
would be another weight, or another letter of the vocabulary. The label is one more part of the archive, which
torch.load passes over. It says what the file is to which training, so that weights and configuration know each other.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from custom_llm.common.errors import UserError, describe_os_error

# All that torch.load and zipfile are known to raise for a file that is foreign, cut short or altered.
DAMAGED = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError,
    OverflowError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
ZIP = b"PK\x03\x04"
PART = "archive/custom_llm_training"  # the part of the archive that is the label
MOST_LABEL = 200  # bytes


class Label(NamedTuple):
    """What a file is to a training; empty for files of others, of older versions, and of no training."""

    kind: str = ""  # config, weights or checkpoint
    training: str = ""  # the same in all files of one training (see `training.resume.identify`)


def to_bytes(value: Any, label: Label | None = None) -> bytes:
    """What torch.save writes; by way of memory, because torch.save hides the reason when a disk is full."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    if label is not None and label.training:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(zipfile.ZipInfo(PART), " ".join(label))
    return buffer.getvalue()


def load_file(path: str | Path, remedy: str) -> tuple[Any, Label]:
    """What `to_bytes` has given, and the label; UserError names the `remedy` where that cannot be read."""
    if Path(path).is_fifo():  # to open it would wait for a writer
        raise UserError(f"{path} is not a regular file; make one with {remedy}")
    try:
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about foreign files before it refuses them
            label = _check(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True), label
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with {remedy}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {describe_os_error(error)}") from None
    except DAMAGED:
        raise UserError(f"{path} is damaged or not a file of this project; make it anew with {remedy}") from None


def label_of(path: Path) -> Label:
    """The label of a file; an empty one where there is none, or no file that can be read."""
    try:
        if not path.is_file():
            return Label()
        with zipfile.ZipFile(path) as archive:
            return _label(archive)
    except (OSError, *DAMAGED):
        return Label()


def _check(file: IO[bytes]) -> Label:
    """Raise one of DAMAGED where a part of an archive is not what was written; return its label."""
    if file.read(len(ZIP)) != ZIP:
        return Label()  # a pickle of old versions, or nothing of torch's
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            # torch packs nothing and marks nothing; what is marked as a folder its reader gives no content.
            if part.compress_type or part.external_attr & 0xFF:
                raise zipfile.BadZipFile
        if archive.testzip() is not None:
            raise zipfile.BadZipFile
        return _label(archive)


def _label(archive: zipfile.ZipFile) -> Label:
    if PART not in archive.NameToInfo or archive.getinfo(PART).file_size > MOST_LABEL:
        return Label()
    words = archive.read(PART).decode("ascii", "replace").split()
    return Label(*words) if len(words) == len(Label._fields) else Label()
