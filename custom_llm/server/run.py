"""A server from its start to its end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys

import uvicorn
from fastapi import FastAPI

from custom_llm.common.errors import UserError
from custom_llm.server.http.guards import MAX_HEADERS
from custom_llm.server.http.protocol import BACKLOG, Protocol
from custom_llm.server.scheduler import Worker

KEEP_ALIVE_SECONDS = 15  # longer than the 5 s after which httpx, and so the openai client, lets a connection go
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
SEND_BUFFER = 2**17  # bytes of an answer in the system; it would take some MB for each client that does not read
ENDING_SECONDS = 2  # for answers under way


class Server(uvicorn.Server):
    """uvicorn's, that says when it is ready and ends at once."""

    def __init__(self, app: FastAPI, worker: Worker, ready: str) -> None:
        super().__init__(uvicorn.Config(
            app, http=Protocol, ws="none", backlog=BACKLOG, loop="asyncio", lifespan="off", log_level="error",
            access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=ENDING_SECONDS, h11_max_incomplete_event_size=MAX_HEADERS,
        ))  # fmt: skip
        self.worker, self.ready = worker, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.ready, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.worker.stop()  # or requests under way would be waited for
        await super().shutdown(sockets)


def serve(app: FastAPI, worker: Worker, listener: socket.socket, ready: str) -> None:
    """Answer until Ctrl-C, SIGTERM, or the end of the terminal (but for `nohup`)."""
    server = Server(app, worker, ready)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    # uvicorn raises a signal again when it has ended for it; here, that is no failure.
    before = {number: signal.signal(number, server.handle_exit) for number in numbers}
    worker.start()
    try:
        server.run([listener])
    finally:
        if not worker.stop(ENDING_SECONDS):
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stdout.flush()
            os._exit(0)  # in the middle of a long computation, whose memory cannot be freed
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError when there is no such host here, or the port is taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise UserError(f"--host {host}: no such address; give 127.0.0.1, or one of this computer's") from None
    family, _, _, _, where = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost has two
    try:
        listener = socket.create_server(where, family=family)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        hint = "give 127.0.0.1, or an address of this computer"
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            hint = "give another --port (0: any that is free)"
        raise UserError(f"--host {host} --port {port}: {reason}; {hint}") from None
    # For its connections, too: asyncio does so only for sockets that name their protocol, which this one does not.
    # Without it, the first event of a stream waits for the client to acknowledge the headers, some 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listener
