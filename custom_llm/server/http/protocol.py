"""HTTP for clients that are slow, on purpose or not: uvicorn's, with an end to each wait for them."""

from __future__ import annotations

import asyncio
import json
import math
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from custom_llm.common.errors import UserError
from custom_llm.server.http.errors import SERVER_ERROR, ApiError
from custom_llm.server.http.guards import MAX_HEADERS, headers_too_large

MAX_CONNECTIONS = 512  # fewer where the process may not open so many files
MAX_BACKLOG = 128  # connections that asyncio may take at once, before one of them can be refused
OTHER_FILES = 40  # open beside connections
LEAST_ROOM = 10  # for connections
READ_BYTES = 16384  # at once; asyncio's 256 kB can be 43,000 chunks of a body, which h11 would split for half a second
HEADER_SECONDS = 10  # for a request's line and headers
UNREAD_SECONDS = 30  # how long a client may read nothing of its answer


def most_connections() -> tuple[int, int]:
    """How many connections there may be, and how many more asyncio may take at once: so that each can be refused.

    Raises UserError when the process may not open enough files.
    """
    try:
        import resource
    except ImportError:  # Windows
        return MAX_CONNECTIONS, MAX_BACKLOG
    wanted = MAX_CONNECTIONS + MAX_BACKLOG + OTHER_FILES
    allowed, at_most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return MAX_CONNECTIONS, MAX_BACKLOG
    allowed = wanted if at_most == resource.RLIM_INFINITY else min(wanted, at_most)  # on a Mac, it is 256 at first
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, at_most))
    room = allowed - OTHER_FILES
    if room < LEAST_ROOM:
        raise UserError(f"only {allowed} files may be open; start the server where `ulimit -n` is {wanted}")
    backlog = min(MAX_BACKLOG, room // 2)
    return room - backlog, backlog


MOST, BACKLOG = most_connections()


class Protocol(H11Protocol):
    """A connection. uvicorn waits forever for the headers, and for a client that does not read its answer."""

    _deadline: asyncio.TimerHandle | None = None  # for the headers
    _unread: asyncio.TimerHandle | None = None
    _left = math.inf  # of the last answer, when it was looked at

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.max_size = READ_BYTES
        super().connection_made(transport)
        if len(self.connections) > MOST:
            error = ApiError(503, "too many connections; try again later", kind=SERVER_ERROR)
            transport.write(_response(error))
            transport.close()
            return
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._left = math.inf
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait_for_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def timeout_keep_alive_handler(self) -> None:
        left = self.transport.get_write_buffer_size()  # of an answer, for which closing would wait
        if 0 < left < self._left:  # it is being read
            self._left = left
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        if left:
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            is_head = self.conn.our_state is h11.IDLE and len(self.conn.trailing_data[0]) > MAX_HEADERS
            error = headers_too_large() if is_head else ApiError(400, msg)
            self.transport.write(_response(error))
        self.transport.close()

    def _wait_for_reader(self) -> None:
        """Until the client has read on; it may be slow, but not for so long that it reads nothing."""
        left = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() < left:
                self._wait_for_reader()
            else:
                self.transport.abort()

        self._unread = self.loop.call_later(UNREAD_SECONDS, look)

    def _wait_for_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _response(error: ApiError) -> bytes:
    content = json.dumps(error.body()).encode()
    head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content
