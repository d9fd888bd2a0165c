"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from custom_llm.errors import UserError, describe_os_error


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed over `path` when the block ends well, removed when it does not.

    Raises:
        UserError: the folder is missing or closed to us, `path` is a folder, or the disk is full.
    """
    path = check_target(path)
    _remove_stale(path)
    # The ending stays, since some writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {describe_os_error(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_target(path: str | Path) -> Path:
    """Raise UserError for a path that cannot be written, before hours are spent on what is to be in it."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file to write")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: permission denied in the folder {path.parent}")
    return path


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` as one step.

    Raises:
        UserError: see `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _remove_stale(path: Path) -> None:
    """Remove what a process that was killed while it wrote `path` has left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp{glob.escape(path.suffix)}"):
        process = left.name.removesuffix(f".tmp{path.suffix}").rpartition(".")[2]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)
