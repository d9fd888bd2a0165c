"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import psutil

from custom_llm.common.errors import UserError, describe_os_error

LOSSES = ".loss.csv"  # how the file of a training's figures ends, which is no text to learn from


class Kind(Enum):
    """Kinds of files the steps write, with the bytes such a file may begin with."""

    PTH = (b"PK", b"\x80")  # PyTorch's archive, and the pickle of old versions
    GGUF = (b"GGUF",)


def beside(path: str | Path, ending: str) -> Path:
    """The file that belongs to another one: `m.yaml` for `m.pth`; for other names the ending after the whole name.

    >>> str(beside("run-0.1", ".yaml"))  # and not that of run-0.2
    'run-0.1.yaml'
    """
    path = Path(path)
    return path.parent / ((path.stem if path.suffix == ".pth" else path.name) + ending)  # with_name refuses "."


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed over `path` when the block ends well, removed when it does not.

    UserError where the folder is missing or closed to us, `path` is a folder, or the disk is full.
    """
    path = check_target(path)
    remove_abandoned(path.parent, f".{path.stem}.", f".tmp{path.suffix}")
    # The ending stays, since some writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BrokenPipeError:  # a message about the file did not get out; the file itself is not to blame
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {describe_os_error(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_target(path: str | Path, kind: Kind | None = None) -> Path:
    """The file that writing to `path` would replace, links followed; before hours are spent on its content.

    UserError where it cannot be written, or holds something else than the `kind` that is going to be.
    """
    if "\0" in str(path):
        raise UserError(f"{str(path)!r} is not the name of a file")
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file; give the name of a file to write")
    if kind is not None and path.exists():
        with path.open("rb") as file:
            start = file.read(4)
        if start and not start.startswith(kind.value):
            raise UserError(f"{path} is there and is no {kind.name} file; move it away or give another name to write")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: permission denied in the folder {path.parent}")
    return path


def check_distinct(**paths: str | Path) -> None:
    """Raise UserError when two flags name the same file, which one of them would destroy."""
    seen: dict[str, str] = {}
    for flag, path in paths.items():
        if "\0" in str(path):
            raise UserError(f"--{flag} {str(path)!r} is not the name of a file")
        other = seen.setdefault(os.path.realpath(path), flag)
        if other != flag:
            raise UserError(f"--{other} and --{flag} are both {path}; give two different files")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` as one step; UserError as by `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove_abandoned(folder: Path, start: str, end: str = "") -> None:
    """Remove what killed processes have left in `folder`: names of `start`, the number of a process and `end`."""
    for left in folder.glob(f"{glob.escape(start)}*{glob.escape(end)}"):
        process = re.search(r"[.-](\d+)$", left.name.removesuffix(end))
        if process and not psutil.pid_exists(int(process[1])):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


MARK = "Written by custom-llm-scripts, anew with every export: without this line it stays as it is."


def write_own(path: Path, content: str) -> str | None:
    """Write a text that has MARK in it to `path`; a note for the person if that cannot be, or would destroy theirs."""
    try:
        path = check_target(path)  # a pipe would wait for a writer
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
            return f"{path} is there and is not, or no longer, one that this program writes; it stays as it is"
        write_bytes(path, content.encode("utf-8", "replace"))
    except UserError as error:
        return f"{error}"
    except OSError as error:
        return f"cannot write {describe_os_error(error)}"
    return None
