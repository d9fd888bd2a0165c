"""Signals: as an exception that unwinds, or as a request to stop between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

HANGUP = 1  # SIGHUP, which not every system has
NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK")  # of the last two each system has one: the terminal was closed


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """While entered, these signals raise SystemExit, so that temporary folders are removed and children ended.

    What else was decided about a signal (`nohup`, a handler) stays; and only the main thread may decide.
    """
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # what a shell reports


class StopRequest:
    """While entered, the first Ctrl-C or SIGTERM only sets `requested`; a second one interrupts at once.

    also: asked for whether the terminal is gone, which is a request to stop as well.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self._also, self._number = also, 0
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> int:
        """The number of the signal to stop by; 0: none."""
        return self._number or (HANGUP if self._also() else 0)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
