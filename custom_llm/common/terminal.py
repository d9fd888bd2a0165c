"""A terminal, or a reader of a pipe, that may go away while there is work to be ended well."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

GONE = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.EINVAL}  # the last is how Windows calls a closed pipe
HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none


class Terminal:
    """While entered, stdout and stderr do not fail: where nobody reads one any more, it goes on in the file `log`.

    `is_lost` tells so, and of a hang-up (SIGHUP), unless that is ignored as under `nohup`. What cannot be written for
    another reason, such as a full disk, is left out.
    """

    def __init__(self, log: Path) -> None:
        self.is_lost = False
        self._log = log

    def __enter__(self) -> Terminal:
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Stream(stream, self._lose) for stream in self._streams)
        in_main = threading.current_thread() is threading.main_thread()  # only there may handlers be set
        self._handles = in_main and HANG_UP is not None and signal.getsignal(HANG_UP) is signal.SIG_DFL
        if self._handles:
            signal.signal(HANG_UP, self._hang_up)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        if self._handles:
            signal.signal(HANG_UP, signal.SIG_DFL)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self.is_lost = True

    def _lose(self, stream: TextIO) -> None:
        """Let the descriptor of a stream lead to the log from now on."""
        self.is_lost = True
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            if self._log.exists() and not self._log.is_file():  # opening a pipe would wait for a reader
                raise FileExistsError
            log = os.open(self._log, flags, 0o666)
            os.write(
                log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} nobody reads this any more; it goes on here:\n".encode()
            )
        except OSError:
            log = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError):  # what a notebook puts in its place has none
            os.dup2(log, stream.fileno())
        os.close(log)


class _Stream:
    """A stream that tells `lose` when it is found closed, and then writes where that has led it."""

    def __init__(self, stream: TextIO, lose: Any) -> None:
        self._stream, self._lose, self._is_lost = stream, lose, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not (self._is_lost and "\r" in text):  # a bar of progress is for a terminal
            self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Any) -> None:
        try:
            call()
        except OSError as error:
            if error.errno not in GONE or self._is_lost:
                return
            self._is_lost = True
            self._lose(self._stream)
            # What failed is still in its buffer, if it has one.
            self._try(call if getattr(self._stream, "write_through", False) else self._stream.flush)
