"""Who grades texts: a model behind an OpenAI-compatible address, or one in a GGUF file.

Over HTTP with the standard library alone: no redirect is followed, so that a key goes nowhere else, and an answer has a
time and a size, whatever the other side does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from custom_llm.common.errors import UserError
from custom_llm.common.text import shown
from custom_llm.config.sampling import Sampling
from custom_llm.evaluation.metrics.grades import GRAMMAR, NoAnswer, fill, read_prompt
from custom_llm.inference.engine import Engine
from custom_llm.llamacpp import MISSING, is_available

# In a file
FILE_ANSWER_TOKENS = 200
ANSWER_CHARACTERS = '{"grammar": 1234567890, "creativity", "consistency", "age": "ABCDEF"}'
# Behind an address
ATTEMPTS = 4
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before the second attempt, doubled each time
LONGEST_REPLY = 1 << 22  # bytes
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
# Parameters that some models of OpenAI refuse: those are left out then.
OPTIONAL = {"temperature": 0, "max_tokens": 1000}


def open_judge(
    judge: str, model: str | None, key: str | None, seconds: float, threads: int | None, prompt_path: str | None
) -> Callable[[str, str], str]:
    """What sends a beginning and its continuation to the judge and returns its answer, or raises `NoAnswer`.

    judge: an address or a file. model, key, seconds: see `AddressJudge`. prompt_path: what the judge is told (default:
    our words). Raises UserError when there is no such judge, it cannot write grades, or the prompt cannot be read.
    """
    prompt = read_prompt(prompt_path)
    if "://" in judge:
        ask = AddressJudge(judge, model, key, seconds).ask
    else:
        try:
            exists = judge != "" and Path(judge).exists()  # Path("") is the folder
        except ValueError:  # a NUL in the name
            exists = False
        if not exists:
            raise UserError(f"--judge {judge}: no such file, and no address such as http://127.0.0.1:8000/v1")
        ask = open_file_judge(judge, threads)
    return lambda beginning, continuation: ask(fill(prompt, beginning, continuation))


def open_file_judge(path: str, threads: int | None = None) -> Callable[[str], str]:
    """What answers prompts by a GGUF file, whose answers follow a grammar. Raises as `open_judge`."""
    if not is_available():
        raise UserError(f"--judge {path} runs in llama.cpp: {MISSING}; or name an address")
    engine = Engine(path, n_threads=threads)
    if unknown := engine.read(ANSWER_CHARACTERS).unknown:
        engine.close()
        raise UserError(
            f"--judge {path} cannot write grades, since its vocabulary has no {unknown[0]!r}; give a larger model"
        )
    sampling = Sampling(temp=0, grammar=GRAMMAR)

    def ask(prompt: str) -> str:
        tokens = engine.read(prompt).tokens
        if len(tokens) + FILE_ANSWER_TOKENS > engine.window:
            raise NoAnswer(f"a prompt of {len(tokens):,} tokens, and {path} reads {engine.window:,} with its answer")
        return "".join(piece.text for piece in engine.stream(tokens, FILE_ANSWER_TOKENS, sampling))

    return ask


class AddressJudge:
    """Answers prompts through /chat/completions of an OpenAI-compatible address."""

    def __init__(self, url: str, model: str | None, key: str | None, seconds: float) -> None:
        """url: such as http://127.0.0.1:8000/v1. model: None asks for the first one there. seconds: for one answer.

        Raises UserError when it is no address, nobody answers there, or the key is wrong.
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
        """The answer to a prompt. Raises `NoAnswer` when this one got none, UserError when no other would get one."""
        while True:
            body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], **self._parameters}
            status, reply = self._persist("POST", "/chat/completions", body)
            if status == 400 and (refused := [name for name in self._parameters if name in _text(reply)]):
                for name in refused:
                    del self._parameters[name]
                continue
            if status != 200:
                raise NoAnswer(f"status {status}: {_message(reply)}")
            answer = _found(reply, "choices", 0, "message", "content") or ""
            if not answer.strip():
                raise NoAnswer("an answer without a text")
            return answer

    def _first_model(self) -> str:
        try:
            status, reply = self._persist("GET", "/models", None)
        except NoAnswer as error:
            raise UserError(
                f"--judge {self.url} gives no answer ({error}); start the judge, or name another address"
            ) from None
        name = _found(reply, "data", 0, "id") if status == 200 else None
        if name is None:
            raise UserError(f"--judge {self.url} does not say which models it has; name one with --judge_model")
        return name

    def _persist(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """A request's status and reply, tried again while the other side is busy or cannot be reached."""
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, headers, reply = self._request(method, path, body)
                problem = f"status {status}: {_message(reply)}"
            except (OSError, http.client.HTTPException) as error:
                status, headers, problem = 0, {}, str(error) or type(error).__name__
            if status in (401, 403):
                hint = "give a key with --judge_key or in OPENAI_API_KEY"
                raise UserError(f"--judge {self.url} refuses: {problem}; {hint}")
            if status == 404 or 300 <= status < 400:
                raise UserError(f"--judge {self.url}{'' if method == 'GET' else f', model {self.model}'}: {problem}")
            if status and status not in AGAIN:
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
                    if not ended.is_set():
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


def _text(reply: bytes) -> str:
    """JSON is UTF-8, whatever a header says; what is none is read as far as it goes."""
    return reply.decode("utf-8", "replace")


def _found(reply: bytes, *path: str | int) -> str | None:
    """The text that stands at a place in a reply's JSON; None where there is none."""
    try:
        value = json.loads(_text(reply))
        for key in path:
            value = value[key]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def _message(reply: bytes) -> str:
    """What an error says, in a line."""
    message = _found(reply, "error", "message")
    return " ".join((_text(reply) if message is None else message).split())[:200] or "no message"


def _retry_after(headers: Any) -> float:
    """Seconds that the other side asks to wait; 0 if it does not say."""
    try:
        return max(0.0, min(LONGEST_WAIT, float(headers.get("Retry-After", 0))))
    except ValueError:  # a date
        return 0.0
