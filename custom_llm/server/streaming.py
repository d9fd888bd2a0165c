"""From the worker to the client: the whole answer at once, or as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from custom_llm.server.answers import Answer
from custom_llm.server.channel import Channel
from custom_llm.server.errors import as_api_error
from custom_llm.server.metrics import Metrics
from custom_llm.server.worker import Job, Worker
from custom_llm.server.writer import Part, Task, Writer

# Of a stream the first piece goes out at once; from then on what came in meanwhile is one event. At thousands of
# tokens a second, an event for each would cost more than the tokens.
EVENT_SECONDS = 0.02
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Reply:
    """Has a task computed and sends what comes of it to one client, unless the client hangs up."""

    def __init__(self, writer: Writer, worker: Worker, metrics: Metrics) -> None:
        self.writer, self.worker, self.metrics = writer, worker, metrics

    async def whole(self, request: Request, task: Task, answer: Answer) -> Response:
        """The answer in one."""
        job = self._submit(task)
        gone = asyncio.create_task(_hang_up(request.receive, job, self.worker))
        try:
            items = [item async for portion in self._portions(job) for item in portion]
            return JSONResponse(answer.whole(answer.add(items)))
        finally:
            gone.cancel()
            self.worker.give_up(job)

    async def stream(self, request: Request, task: Task, answer: Answer, include_usage: bool) -> Response:
        """The answer as it is written. An error before the first piece is one of the request."""
        job = self._submit(task)
        gone = asyncio.create_task(_hang_up(request.receive, job, self.worker))
        portions = self._portions(job)
        try:
            items = await anext(portions, [])
            while items and not any(isinstance(item, Part) for item in items):  # no piece so far
                items += await anext(portions)
        except BaseException:
            gone.cancel()
            self.worker.give_up(job)
            raise
        return EventStream(self._events(items, portions, answer, include_usage), gone, lambda: self.worker.give_up(job))

    def _submit(self, task: Task) -> Job:
        job = Job(self.writer.texts(task), Channel())
        self.worker.submit(job)
        return job

    async def _portions(self, job: Job) -> AsyncIterator[list[Any]]:
        start = perf_counter()
        is_first = True
        while items := await job.channel.take():
            if is_first and isinstance(items[-1], Part):
                self.metrics.first_token(perf_counter() - start)
                is_first = False
            yield items
            await job.channel.collect(EVENT_SECONDS)

    async def _events(
        self, items: list[Any], portions: AsyncIterator[list[Any]], answer: Answer, include_usage: bool
    ) -> AsyncIterator[bytes]:
        try:
            while items:
                for choice in answer.add(items):
                    yield _event(answer.chunk([choice]))
                items = await anext(portions, [])
            if include_usage:
                yield _event(answer.chunk([], answer.usage))
        except Exception as error:
            yield _event(as_api_error(error).body())
            return
        yield b"data: [DONE]\n\n"


class EventStream(Response):
    """Server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], gone: asyncio.Task, end: Any) -> None:
        """gone: to be ended with the answer. end: called then."""
        self.events, self.gone, self.end = events, gone, end
        self.status_code, self.background = 200, None
        self.body = b""
        self.init_headers(HEADERS)
        del self.raw_headers[[name for name, _ in self.raw_headers].index(b"content-length")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self.events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.gone.cancel()
            self.end()


async def _hang_up(receive: Receive, job: Job, worker: Worker) -> None:
    """Give up a job when its client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    worker.give_up(job)
    with contextlib.suppress(Exception):
        job.channel.end()


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"
