"""From the worker to the client: the whole answer at once, or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from custom_llm.server.answers import Answer
from custom_llm.server.channel import Channel
from custom_llm.server.http.errors import as_api_error
from custom_llm.server.metrics import Metrics
from custom_llm.server.scheduler import Job, Worker
from custom_llm.server.writer import Part, Read, Task, Writer

# Of a stream the first piece goes out at once; from then on, what came in meanwhile is one event. At thousands of
# tokens a second, an event for each would cost more than the tokens.
EVENT_SECONDS = 0.02
ROOM = 2048  # what may wait for a client, by `size_of`: less than a MB, and more than comes for an event
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second: nginx, do not wait for more


class Replies:
    """Has tasks computed, and sends what comes of each to its client, until the client hangs up."""

    def __init__(self, writer: Writer, worker: Worker, metrics: Metrics) -> None:
        self.writer, self.worker, self.metrics = writer, worker, metrics

    async def whole(self, request: Request, task: Task, answer: Answer) -> Response:
        """The answer in one piece. Raises when the queue is full, or the task cannot be carried out."""
        async with self._job(request, task) as job:
            items = [item async for portion in self._portions(job) for item in portion]
        return JSONResponse(answer.whole(answer.add(items)))

    async def stream(self, request: Request, task: Task, answer: Answer, include_usage: bool) -> Response:
        """The answer as it is written. Raises as `whole`, before the first piece; later, an error is an event."""
        async with self._job(request, task) as job:
            portions = self._portions(job)
            first = await anext(portions, [])
        return EventStream(_events(first, portions, answer, include_usage), lambda: self.worker.give_up(job))

    @asynccontextmanager
    async def _job(self, request: Request, task: Task) -> AsyncIterator[Job]:
        """A job that is given up when the client hangs up or the block fails."""
        job = Job(self.writer.texts(task), Channel(ROOM, size_of), self.metrics.seconds.inc)
        self.worker.submit(job)

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.worker.give_up(job)

        watching = asyncio.create_task(watch())
        try:
            yield job
        except BaseException:
            self.worker.give_up(job)
            raise
        finally:
            watching.cancel()

    async def _portions(self, job: Job) -> AsyncIterator[list[Any]]:
        """What has come in each time, from the first piece of text on."""
        start = perf_counter()
        items = await self._take(job)
        while items and not isinstance(items[-1], Part):
            more = await self._take(job)
            if not more:  # given up before the first piece
                return
            items += more
        self.metrics.first_token.observe(perf_counter() - start)
        while items:
            yield items
            await job.channel.collect(EVENT_SECONDS)
            items = await self._take(job)

    async def _take(self, job: Job) -> list[Any]:
        """What has come in, for which the worker has room again."""
        items = await job.channel.take()
        self.worker.resume(job)
        return items


class EventStream(StreamingResponse):
    """Server-sent events; `end` is called after the last, or when the client has gone."""

    def __init__(self, events: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        super().__init__(events, headers=HEADERS, media_type="text/event-stream")
        self.end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.end()


def size_of(item: Read | Part) -> int:
    """Pieces of text, and tokens of which is told how likely they were."""
    return 1 + sum(1 + len(score.top) for score in item.scores) if isinstance(item, Part) else 1


async def _events(
    items: list[Any], portions: AsyncIterator[list[Any]], answer: Answer, include_usage: bool
) -> AsyncIterator[bytes]:
    try:
        while items:
            for choice in answer.add(items):
                yield _event(answer.chunk([choice]))
            items = await anext(portions, [])
    except Exception as error:
        yield _event(as_api_error(error).body())
        return
    if include_usage:
        yield _event(answer.chunk([], answer.usage))
    yield b"data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"
