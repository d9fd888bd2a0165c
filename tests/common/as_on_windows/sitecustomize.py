"""Python as on Windows, as far as that can be had elsewhere. Python imports this at its start where it is on the path.

Names that only POSIX has are gone, modules of POSIX are not there for our package, nor is /proc; a file that is open or
mapped cannot be replaced, removed or made empty; and some names of files are refused.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import pathlib
import re
import signal
from collections.abc import Callable
from typing import Any

GONE = {  # but for SIGKILL: torch asks whether this is Windows before it names that
    os: "fork getgid geteuid getloadavg getpgid getuid killpg mkfifo sched_getaffinity setsid",
    signal: "SIGALRM SIGHUP SIGPIPE SIGQUIT SIGUSR1 SIGUSR2",
}
MODULES = set("curses fcntl grp posix pty pwd readline resource syslog termios tty".split())
REFUSED = re.compile(r'.*[<>:"|?*\x00-\x1f].*|.*[. ]|(con|nul|aux|prn|com\d|lpt\d)(\..*)?', re.IGNORECASE)

for module, names in GONE.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

original_import, original_open = builtins.__import__, builtins.open


def import_module(name: str, globals: Any = None, *rest: Any, **more: Any) -> Any:
    if name in MODULES and ((globals or {}).get("__name__") or "").startswith("custom_llm"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return original_import(name, globals, *rest, **more)


def is_open(path: Any) -> bool:
    """Whether this process has a file open."""
    real = os.path.realpath(os.fsdecode(path))
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 (pathlib calls what is replaced here)
        try:
            if os.readlink(f"/proc/self/fd/{number}") == real:  # noqa: PTH115
                return True
        except OSError:  # that of listdir
            continue
    return False


def is_mapped(path: Any) -> bool:
    real = os.path.realpath(os.fsdecode(path))
    with original_open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.rstrip("\n").endswith(f" {real}") for line in file)


def guarded(function: Callable, n_paths: int) -> Callable:
    """A function that refuses files in use."""

    def call(*args: Any, **options: Any) -> Any:
        for path in args[:n_paths]:
            if options.get("dir_fd") is None and (is_open(path) or is_mapped(path)):
                raise PermissionError(errno.EACCES, "The process cannot access the file, which is in use", path)
        return function(*args, **options)

    return call


def check_name(path: Any) -> None:
    if REFUSED.fullmatch(os.path.basename(os.fsdecode(path))):  # noqa: PTH119
        raise OSError(errno.EINVAL, "Invalid argument", path)


def opening(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
    if not isinstance(file, int) and set(mode) & set("wax+"):
        check_name(file)
        if "w" in mode and is_mapped(file):
            raise OSError(errno.EINVAL, "Invalid argument", file)
    return original_open(file, mode, *args, **options)


def opening_of_pathlib(file: Any, *args: Any, **options: Any) -> Any:
    if not isinstance(file, int) and os.fspath(file).startswith("/proc/"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", file)
    return opening(file, *args, **options)


def making_folder(path: Any, *args: Any, mkdir: Callable = os.mkdir, **options: Any) -> None:
    check_name(path)
    mkdir(path, *args, **options)


builtins.__import__, builtins.open, io.open, os.mkdir = import_module, opening, opening_of_pathlib, making_folder
os.replace, os.rename, os.unlink, os.remove = (
    guarded(os.replace, 2), guarded(os.rename, 2), guarded(os.unlink, 1), guarded(os.remove, 1),
)  # fmt: skip
if accessor := getattr(pathlib, "_NormalAccessor", None):  # of Python 3.10, which has taken the functions already
    accessor.open = staticmethod(io.open)
    for name in ("mkdir", "rename", "replace", "unlink"):
        setattr(accessor, name, staticmethod(getattr(os, name)))
