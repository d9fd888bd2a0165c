"""What a thread makes, on its way to a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from threading import Lock
from typing import Any


class Channel:
    """Items from one thread to one coroutine, which takes all that have come in at once.

    The thread never waits for the coroutine: it stops adding when the channel `is_full`, and does something else. The
    event loop is woken only if the coroutine waits: thousands of items a second would else cost the thread a good part
    of its time.
    """

    def __init__(self, room: int, size: Callable[[Any], int]) -> None:
        """To be made where the coroutine runs. size: of an item, of those that there is room for."""
        self._room, self._size, self._held = room, size, 0
        self._loop = asyncio.get_running_loop()
        self._items: list[Any] = []
        self._lock = Lock()
        self._wake: asyncio.Event | None = None  # set when there is something, or at the end
        self._ended = self._loop.create_future()
        self._is_ended = False
        self._error: Exception | None = None
        self.closed = False

    # The thread's side

    @property
    def is_full(self) -> bool:
        """Whether to add no more until some were taken."""
        return self._held >= self._room

    def put(self, item: Any) -> None:
        """Add an item; in vain if nobody wants it any more."""
        with self._lock:
            if self.closed:
                return
            self._items.append(item)
            self._held += self._size(item)
            wake, self._wake = self._wake, None
        if wake is not None:
            self._call(wake.set)

    def end(self, error: Exception | None = None) -> None:
        """Nothing comes any more; `error` is raised once all items are taken."""
        with self._lock:
            if self._is_ended:
                return
            self._is_ended, self._error = True, error
            wake, self._wake = self._wake, None
        self._call(self._ended.set_result, None)
        if wake is not None:
            self._call(wake.set)

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        """Let the event loop call a function."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(function, *args)

    # The coroutine's side

    async def take(self) -> list[Any]:
        """All items that are there, at least one; none at the end. Raises what the thread ended with."""
        while True:
            with self._lock:
                items, self._items, self._held = self._items, [], 0
                if not items and not self._is_ended:
                    wake = self._wake = asyncio.Event()
            if items:
                return items
            if self._is_ended:
                if self._error is not None:
                    raise self._error
                return []
            await wake.wait()

    async def collect(self, seconds: float) -> None:
        """Let items come in for a while, or until the last is there."""
        await asyncio.wait([self._ended], timeout=seconds)

    def close(self) -> None:
        """Nobody wants items any more."""
        with self._lock:
            self.closed = True
            self._items, self._held = [], 0
        self.end()
