"""Where texts that were downloaded and encoded are kept, and how a changed file is noticed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import write_bytes
from custom_llm.data.text import PIECE, OnRead, open_bytes

DAY = 86_400  # seconds
DAYS_KEPT = 30  # without being used
# The names of what is written here; a folder that was named with --cache_dir may hold files of a person as well.
TEMPORARY = r"\..+\.[0-9a-f]+\.tmp\.(npy|json|txt)"
OURS = re.compile(rf"[0-9a-f]{{32}}\.(npy|json)|[\w-]+-[0-9a-f]{{12}}\.[0-9a-f]{{1,16}}\.txt|{TEMPORARY}")
FRESH = 2.0  # seconds within which a file may change again without another time of change
REMEMBERED = 10_000  # digests


def default_cache() -> Path:
    """The folder of this program in the user's cache; UserError where the user has no home."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        caches = caches if caches.is_absolute() else Path.home() / ".cache"  # XDG says to ignore relative ones
    except RuntimeError:
        raise UserError("there is no home folder to keep encoded texts in; name one with --cache_dir") from None
    return caches / "custom-llm-scripts"


def make_folder(folder: Path) -> Path:
    """`folder`, made if need be, without the files of ours in it that nothing has used for a month.

    UserError where it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        for path in filter(lambda path: OURS.fullmatch(path.name), folder.iterdir()):
            with contextlib.suppress(OSError):  # another process was quicker
                if _days_unused(path) > DAYS_KEPT:
                    path.unlink()
    except OSError as error:
        raise UserError(
            f"cannot keep what is read: {describe_os_error(error)}; name a folder to write to with --cache_dir"
        ) from None
    return folder


def mark_used(path: Path) -> None:
    """Keep a file of the cache for another month. The time at which it was made stays."""
    with contextlib.suppress(OSError):
        if _days_unused(path) > 1:  # since a mark makes it a changed file to `content_digest`
            os.utime(path, (time.time(), path.stat().st_mtime))


def _days_unused(path: Path) -> float:
    status = path.stat()
    return (time.time() - max(status.st_atime, status.st_mtime)) / DAY


def content_digest(files: Iterable[Path], cache: Path, on_read: OnRead = None) -> str:
    """A digest of the content of `files`, in hexadecimal digits; UserError where one cannot be read.

    As git does, a file that has the size, the number and the times it had when it was read last is not read again.
    """
    memo_file = cache / "digests.json"
    try:
        memo = json.loads(memo_file.read_bytes())
    except (OSError, ValueError, RecursionError):  # none, or damaged
        memo = {}
    memo = memo if isinstance(memo, dict) else {}
    digest, n_read = blake2b(digest_size=16), 0
    for path in files:
        name, state = os.path.realpath(path), file_state(path)
        known = memo.get(name)
        if not (state and isinstance(known, list) and known[:-1] == state):
            known = [*state, _digest(path, on_read)]
            memo.pop(name, None)
            status = path.stat()
            if time.time() - max(status.st_mtime, status.st_ctime) > FRESH:
                memo[name] = known
                n_read += 1
        elif on_read is not None:
            on_read(state[0])
        digest.update(str(known[-1]).encode())
    if n_read:
        write_bytes(memo_file, json.dumps(dict(list(memo.items())[-REMEMBERED:])).encode())
    return digest.hexdigest()


def file_state(path: Path) -> list[int]:
    """What of a file changes with its content; [] where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digest(path: Path, on_read: OnRead) -> str:
    digest = blake2b(digest_size=16)
    with open_bytes(path) as file:
        try:
            while content := file.read(PIECE):
                digest.update(content)
                if on_read is not None:
                    on_read(len(content))
        except OSError as error:
            raise UserError(f"cannot read {path}: {describe_os_error(error)}") from None
    return digest.hexdigest()
