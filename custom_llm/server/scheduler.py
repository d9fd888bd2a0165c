"""The one thread that computes, and those who wait for it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.server.channel import Channel
from custom_llm.server.http.errors import SERVER_ERROR, ApiError, as_api_error

MAX_PAUSED = 32  # texts that are half written, each in some MB of memory


@dataclass(eq=False)
class Job:
    """Texts of one request: each a generator of items, which go through the channel."""

    texts: Iterator[Generator[Any, None, None]]
    channel: Channel
    spent: Callable[[float], None]  # is told how many seconds each turn took
    text: Generator[Any, None, None] | None = None  # the next one, or the rest of one; None: not known yet

    def end(self, error: ApiError | None = None) -> None:
        """Nobody computes it any more."""
        self.channel.end(error)
        self.channel.close()
        if self.text is not None:
            self.text.close()


class Worker:
    """Takes jobs in the order they came. A job of several texts stands at the end again after each.

    It never waits for a client. A job whose channel is full is paused in the middle of its text, and stands at the end
    again when its client has read on (`resume`). Of too many that are paused the first is given up.
    """

    def __init__(self, limit: int) -> None:
        """limit: how many jobs may wait."""
        self._limit = limit
        self._waiting: deque[Job] = deque()
        self._paused: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = Condition()
        self._stopped = False
        # A daemon, so that a computation that hangs does not keep the process.
        self._thread = Thread(target=self._run, name="worker", daemon=True)

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn. Raises ApiError when too many do."""
        with self._changed:
            if self._stopped:
                raise _ending()
            if len(self._waiting) >= self._limit:
                message = f"{self._limit} requests are waiting already; try again later"
                wait = {"Retry-After": "1"}  # seconds
                raise ApiError(429, message, kind="rate_limit_error", code="queue_full", headers=wait)
            self._waiting.append(job)
            self._changed.notify()

    def resume(self, job: Job) -> None:
        """What the job's channel held was taken: if it was paused for that, it goes on."""
        with self._changed:
            if job in self._paused:
                self._paused.remove(job)
                self._waiting.append(job)
                self._changed.notify()

    def give_up(self, job: Job) -> None:
        """Nobody waits for the job any more: it leaves the queue, or ends after the token that is being computed."""
        job.channel.close()
        with self._changed:
            places = [place for place in (self._waiting, self._paused) if job in place]
            for place in places:
                place.remove(job)
        if places:
            job.end()

    def stop(self, seconds: float = 0) -> bool:
        """End all jobs with an error, and the thread; whether it ended within so many seconds."""
        with self._changed:
            self._stopped = True
            idle = [*self._waiting, *self._paused]
            running = self._running
            self._waiting.clear()
            self._paused.clear()
            self._changed.notify()
        if running is not None:
            running.channel.end(_ending())
            running.channel.close()
        for job in idle:
            job.end(_ending())
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                job = self._running = self._waiting.popleft()
            start, error = perf_counter(), None
            try:
                has_more = self._turn(job)
            except Exception as raised:
                if not isinstance(raised, (ApiError, UserError)):
                    logging.getLogger("uvicorn.error").exception("a text failed")
                has_more, error = False, as_api_error(raised)
            job.spent(perf_counter() - start)
            if has_more and self._put_back(job):
                continue
            if job.channel.closed:
                job.end()
            else:
                job.channel.end(error)

    def _put_back(self, job: Job) -> bool:
        """Let the job that was running wait for its next turn, or for its client; whether it has one.

        From then on whoever takes it from its place may end it, and else nobody: a generator is closed by one thread.
        """
        with self._changed:
            if job.channel.closed:
                return False
            # Looked at under the lock, so that `resume` cannot come in between.
            (self._paused if job.channel.is_full else self._waiting).append(job)
            dropped = self._paused.popleft() if len(self._paused) > MAX_PAUSED else None
        if dropped is not None:
            dropped.end(ApiError(408, "the answer was not read in time, and too many others are not read either"))
        return True

    def _turn(self, job: Job) -> bool:
        """Compute a text of a job, or as much of it as the channel has room for; whether there is more to compute."""
        job.text = job.text or next(job.texts)
        for item in job.text:
            job.channel.put(item)
            if job.channel.closed:  # by a client that has gone
                return False
            if job.channel.is_full:
                return True
        job.text = next(job.texts, None)
        return job.text is not None


def _ending() -> ApiError:
    return ApiError(503, "the server is ending", kind=SERVER_ERROR)
