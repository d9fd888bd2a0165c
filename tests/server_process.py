"""serve_gguf.py as a process of its own, and connections to it that no HTTP library would make."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

import httpx
from conftest import ENVIRONMENT, ROOT

SECONDS = 20  # before a test gives up


@dataclass
class Served:
    """A server that is ready.

    Attributes:
        http: a client of it.
        log: what it has printed to stderr.
    """

    url: str
    http: httpx.Client
    process: subprocess.Popen
    log: Path

    def post(self, **body) -> httpx.Response:
        """`/v1/completions`."""
        return self.http.post("/v1/completions", json=body)

    def metric(self, name: str) -> float:
        """A figure of /metrics."""
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name + " ")).split()[1])

    def connect(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return socket.create_connection((host, int(port)), timeout=SECONDS)

    def send(self, data: bytes) -> tuple[int, str, bytes]:
        """Status, type and content of the answer to some bytes."""
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of them
                connection.sendall(data)
            answer = HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.getheader("Content-Type"), answer.read()


@contextmanager
def served(
    path: Path, *flags: str, before: Sequence[str] = (), shown: str | None = None, **environment: str
) -> Iterator[Served]:
    """Start a server on a free port, by a command that `before` begins; the end of `with` ends it.

    shown: how it calls the file, if not by its name.
    """
    command = [*before, sys.executable, str(ROOT / "serve_gguf.py"), "--gguf_path", str(path), "--port", "0", *flags]
    log = path.with_suffix(".log")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=path.parent, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**ENVIRONMENT, **environment},
        ) as process,
    ):  # fmt: skip
        try:
            line = process.stdout.readline()
            assert line.startswith(f"serving {shown or path.name} on http://"), log.read_text()
            url = line.split(" on ")[1].split()[0]
            with httpx.Client(base_url=url, timeout=SECONDS) as client:
                yield Served(url, client, process, log)
        finally:
            process.terminate()
