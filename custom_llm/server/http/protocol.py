"""HTTP for clients that are slow, on purpose or not: uvicorn's, with an end to each wait for them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from custom_llm.server.http.errors import SERVER_ERROR, ApiError
from custom_llm.server.limits import HEADER_SECONDS, UNREAD_SECONDS, most_connections

MOST, BACKLOG = most_connections()


class Protocol(H11Protocol):
    """A connection. uvicorn waits for ever for the headers, and for a client that does not read its answer."""

    _deadline: asyncio.TimerHandle | None = None  # for the headers
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST:
            error = ApiError(503, "too many connections; try again later", kind=SERVER_ERROR)
            transport.write(_response(error, "Service Unavailable"))
            transport.close()
            return
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait_for_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # closing would wait for the client to read it
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_response(ApiError(400, msg), "Bad Request"))
        self.transport.close()

    def _wait_for_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _response(error: ApiError, reason: str) -> bytes:
    content: Any = json.dumps(error.body()).encode()
    head = f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content
