"""The one thread that computes, and those who wait for it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.server.channel import Channel
from custom_llm.server.http.errors import SERVER_ERROR, ApiError, as_api_error


@dataclass(eq=False)
class Job:
    """Texts of one request: each an iterator of items, which go through the channel."""

    texts: Iterator[Iterator[Any]]
    channel: Channel
    text: Iterator[Any] | None = None  # the next one; None: not known yet


class Worker:
    """Takes jobs in the order they came. A job of several texts stands at the end again after each."""

    def __init__(self, limit: int) -> None:
        """limit: how many jobs may wait."""
        self._limit = limit
        self._waiting: deque[Job] = deque()
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

    def give_up(self, job: Job) -> None:
        """Nobody waits for the job any more: it leaves the queue, or ends after the token that is being computed."""
        job.channel.close()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def stop(self, seconds: float = 0) -> bool:
        """End all jobs with an error, and the thread; whether it ended within so many seconds."""
        with self._changed:
            self._stopped = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._waiting.clear()
            self._changed.notify()
        for job in jobs:
            job.channel.end(_ending())
            job.channel.close()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                job = self._running = self._waiting.popleft()
            has_more = self._turn(job)
            with self._changed:
                self._running = None
                if has_more and not self._stopped and not job.channel.closed:
                    self._waiting.append(job)

    def _turn(self, job: Job) -> bool:
        """Compute one text of a job; whether there is another."""
        try:
            with closing(job.text or next(job.texts)) as text:
                for item in text:
                    if not job.channel.put(item):
                        break
            if job.channel.closed:  # by a client that has gone, or that does not read
                raise ApiError(408, "the answer was not read in time")
            job.text = next(job.texts, None)
        except Exception as error:
            if not isinstance(error, (ApiError, UserError)):
                logging.getLogger("uvicorn.error").exception("a text failed")
            job.channel.end(as_api_error(error))
            return False
        if job.text is None:
            job.channel.end()
        return job.text is not None


def _ending() -> ApiError:
    return ApiError(503, "the server is ending", kind=SERVER_ERROR)
