"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # elsewhere
    msvcrt = None

ABANDONED = 86_400  # seconds untouched, after which a file was left by a killed process where locks do not tell
FAR = 1 << 30  # the byte that Windows locks, where nothing is written
LOCK = ".lock"  # how the file ends that says who writes beside it, or in its folder
BASE_WEIGHTS = ".base.pth"  # how the file of the weights ends that a training starts from, beside its configuration
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
    start, end = f".{path.stem}.", f".tmp{path.suffix}"  # the ending stays: some writers choose the format by it
    remove_abandoned(path.parent, start, end)
    temporary = None
    try:
        with _claimed(path.parent, start, end) as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except BrokenPipeError:  # a message about the file did not get out; the file itself is not to blame
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {describe_os_error(error)}") from error
    finally:
        if temporary is not None:
            _remove(temporary)


@contextlib.contextmanager
def scratch_folder(parent: Path, start: str) -> Iterator[Path]:
    """A new folder in `parent` whose name begins with `start`; gone afterwards, or by the next one if we are killed.

    UserError where it cannot be made.
    """
    remove_abandoned(parent, start)
    with contextlib.ExitStack() as held:
        try:
            folder = held.enter_context(_claimed(parent, start, is_folder=True))
        except OSError as error:
            raise UserError(f"cannot write {describe_os_error(error)}") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(path: str | Path, way_out: str) -> Iterator[None]:
    """While entered, no other process enters this for the same `path`: a file, there or to come, or a folder there.

    The system lets go of it if we are killed. Where a file system has no locks, nothing is locked. UserError as by
    `check_target`, and where another process is inside: who it is, and `way_out`, which ends the sentence ("give
    another --output_dir").
    """
    real = Path(os.path.realpath(path)) if Path(path).is_dir() else check_target(path)
    lock = real / LOCK if real.is_dir() else real.with_name(f".{real.name}{LOCK}")
    try:
        while True:
            file = lock.open("a+", encoding="utf-8", errors="replace")
            if _lock(file.fileno()) is False:
                with file:
                    file.seek(0)
                    who = file.read(200)
                raise UserError(f"{path} is being written by {who or 'another process'}; {way_out}")
            if _is_at(file.fileno(), lock):
                break
            file.close()  # who was inside has removed it just now
    except OSError as error:
        raise UserError(f"cannot write {path}: {describe_os_error(error)}") from error
    with contextlib.ExitStack() as held:
        if not fcntl:  # what is open cannot be removed on Windows: nor, later, what another process has opened by then
            held.callback(_remove, lock)
        held.enter_context(file)
        if fcntl:
            held.callback(_remove, lock)
        with contextlib.suppress(OSError):  # a full disk
            file.truncate(0)
            file.write(f"{Path(sys.argv[0]).name} (process {os.getpid()} on {platform.node()}, since ")
            file.write(f"{time.strftime('%Y-%m-%d %H:%M')})")
            file.flush()
        yield


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
    """Remove what killed processes have left in `folder`: names of `start`, some hexadecimal digits and `end`.

    Who still writes has it locked. (Numbers of processes mean nothing where containers share a folder.)
    """
    for left in folder.glob(f"{glob.escape(start)}*{glob.escape(end)}"):
        if not re.search(r"[.-][0-9a-f]+$", left.name.removesuffix(end)):
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            is_ours = _lock(held.enter_context(_opened(left))) if fcntl else None
            if is_ours is False or (is_ours is None and time.time() - left.stat().st_mtime < ABANDONED):
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


@contextlib.contextmanager
def _claimed(folder: Path, start: str, end: str = "", is_folder: bool = False) -> Iterator[Path]:
    """A new file or folder in `folder` that nobody takes for abandoned; it stays there."""
    while True:
        path = folder / f"{start}{os.urandom(4).hex()}{end}"
        try:
            if is_folder:
                path.mkdir()
            else:
                path.open("xb").close()
        except FileExistsError:
            continue
        with contextlib.ExitStack() as held:
            if fcntl:  # another process may have looked at it before it was locked, and removed it
                try:
                    file = held.enter_context(_opened(path))
                except FileNotFoundError:
                    continue
                if _lock(file) is False or not _is_at(file, path):
                    continue
            yield path
            return


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file or folder, open so that it can be locked."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer
    try:
        yield file
    finally:
        os.close(file)


def _lock(file: int) -> bool | None:
    """Lock an open file until it is closed; False where another process has, None where there are no locks."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if msvcrt:
            os.lseek(file, FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass
    return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


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
