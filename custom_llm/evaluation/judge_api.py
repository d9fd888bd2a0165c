"""A judge behind an OpenAI-compatible address, over HTTP with the standard library alone.

No redirect is followed, so that a key goes nowhere else. An answer has a time and a size, whatever the other side does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from custom_llm.common.errors import UserError
from custom_llm.common.text import shown
from custom_llm.evaluation.metrics.grades import NoAnswer

ATTEMPTS = 4
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before the second attempt, doubled each time
LONGEST_REPLY = 1 << 22  # bytes
ANSWER_TOKENS = 1000
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
# Parameters that some models of OpenAI refuse: those are left out then.
OPTIONAL = {"temperature": 0, "max_tokens": ANSWER_TOKENS}


class Judge:
    """Answers prompts, through /chat/completions."""

    def __init__(self, url: str, model: str | None, key: str | None, seconds: float) -> None:
        """Args:
        url: such as http://127.0.0.1:8000/v1.
        model: None takes the first one that the address offers.
        seconds: for one answer.

        Raises:
            UserError: it is no address, nobody answers there, or the key is wrong.
        """
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError as error:
            raise UserError(f"--judge {shown(url)}: {error}") from None
        if parts.scheme not in ("http", "https") or not self._host:
            raise UserError(f"--judge {shown(url)} is no address; give one such as http://127.0.0.1:8000/v1")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise UserError("--judge_key has characters that no key has; give it anew")
        self.url, self._is_secure = url, parts.scheme == "https"
        self._path = parts.path.rstrip("/") or "/v1"
        self._headers = {"Content-Type": "application/json", "User-Agent": "custom-llm-scripts"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._seconds = seconds
        self._parameters = dict(OPTIONAL)
        self.model = model or self._first_model()

    def ask(self, prompt: str) -> str:
        """The answer to a prompt.

        Raises:
            NoAnswer: not to this one.
            UserError: the address is none of a judge, or the key is wrong.
        """
        while True:
            body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], **self._parameters}
            status, reply = self._persist("POST", "/chat/completions", body)
            if status == 400 and (refused := [name for name in self._parameters if name in _text(reply)]):
                for name in refused:
                    del self._parameters[name]
                continue
            if status != 200:
                raise NoAnswer(f"status {status}: {_message(reply)}")
            with contextlib.suppress(LookupError, TypeError):
                answer = _parsed(reply)["choices"][0]["message"]["content"]
                if isinstance(answer, str) and answer.strip():
                    return answer
            raise NoAnswer("an answer without a text")

    def _first_model(self) -> str:
        try:
            status, reply = self._persist("GET", "/models", None)
        except NoAnswer as error:
            raise UserError(
                f"--judge {self.url} gives no answer ({error}); start the judge, or name another address"
            ) from None
        with contextlib.suppress(LookupError, TypeError):
            name = _parsed(reply)["data"][0]["id"]
            if status == 200 and isinstance(name, str):
                return name
        raise UserError(f"--judge {self.url} does not say which models it has; name one with --judge_model")

    def _persist(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """A request's status and reply, tried again while the other side is busy or cannot be reached."""
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, headers, reply = self._request(method, path, body)
                problem = f"status {status}: {_message(reply)}"
            except (OSError, http.client.HTTPException) as error:
                status, headers, problem = None, {}, str(error) or type(error).__name__
            if status in (401, 403):
                hint = "give a key with --judge_key or in OPENAI_API_KEY"
                raise UserError(f"--judge {self.url} refuses: {problem}; {hint}")
            if status == 404 or (status is not None and 300 <= status < 400):
                raise UserError(f"--judge {self.url}{'' if method == 'GET' else f', model {self.model}'}: {problem}")
            if status is not None and status not in AGAIN:
                return status, reply
            if attempt < ATTEMPTS:
                time.sleep(min(LONGEST_WAIT, max(wait, _retry_after(headers))))
                wait *= 2
        raise NoAnswer(problem)

    def _request(self, method: str, path: str, body: Any) -> tuple[int, Any, bytes]:
        """One request: status, headers and at most LONGEST_REPLY bytes, in at most `self._seconds`."""
        kind = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._seconds)
        content = None if body is None else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.connect()
            # A timeout of a socket is one between bytes; this is one for all of them.
            with _ended_after(self._seconds, connection.sock) as ended:
                try:
                    connection.request(method, self._path + path, content, self._headers)
                    response = connection.getresponse()
                    reply = response.read(LONGEST_REPLY)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    if ended.is_set():
                        raise TimeoutError(f"more than {self._seconds:g} s") from None
                    raise OSError(str(error) or type(error).__name__) from None
            if ended.is_set():
                raise TimeoutError(f"more than {self._seconds:g} s")
            return response.status, response.headers, reply


@contextlib.contextmanager
def _ended_after(seconds: float, sock: socket.socket) -> Iterator[threading.Event]:
    """Shuts `sock` down when the block takes longer, and sets what it yields then."""
    ended = threading.Event()

    def end() -> None:
        ended.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield ended
    finally:
        timer.cancel()


def _parsed(reply: bytes) -> Any:
    try:
        return json.loads(_text(reply))
    except (ValueError, RecursionError):
        return None


def _text(reply: bytes) -> str:
    """JSON is UTF-8, whatever a header says; what is none is read as far as it goes."""
    return reply.decode("utf-8", "replace")


def _message(reply: bytes) -> str:
    """What an error says, in a line."""
    with contextlib.suppress(LookupError, TypeError):
        message = _parsed(reply)["error"]["message"]
        if isinstance(message, str):
            return " ".join(message.split())[:200]
    return " ".join(_text(reply).split())[:200] or "no message"


def _retry_after(headers: Any) -> float:
    """Seconds that the other side asks to wait; 0 if it does not say."""
    try:
        return max(0.0, min(LONGEST_WAIT, float(headers.get("Retry-After", 0))))
    except ValueError:  # a date
        return 0.0
