"""How much a client may ask for; beyond it a request is refused with a line that names the field."""

from __future__ import annotations

from dataclasses import dataclass

from custom_llm.common.errors import UserError

MAX_TEXTS = 16  # n
MAX_PROMPTS = 256
MAX_TOP = 20  # logprobs and top_logprobs
MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_BIASES, MAX_BIAS = 1024, 100
MAX_GRAMMAR_LENGTH = 8192
MAX_CONNECTIONS = 512  # fewer where the process may not open so many files
MAX_BACKLOG = 128  # connections that asyncio may take at once, before one of them can be refused
OTHER_FILES = 40  # open beside connections
LEAST_ROOM = 10  # for connections
MAX_HEADERS = 16384  # bytes

HEADER_SECONDS = 10  # for a request's line and headers
BODY_SECONDS = 30
UNREAD_SECONDS = 30  # how long an answer may wait for its client to read on
KEEP_ALIVE_SECONDS = 15  # longer than the 5 s after which httpx, and so the openai client, lets a connection go


@dataclass(frozen=True)
class Limits:
    """What the command line decides.

    Attributes:
        max_body: bytes of a request.
        max_tokens: tokens that a request may have written or scored, over all of its texts.
        grammars: whether requests may have one. A few lines of GBNF can keep llama.cpp busy for ever, within one token,
            so that nothing could end it.
    """

    max_body: int = 1_000_000
    max_tokens: int = 16384
    grammars: bool = False


def most_connections() -> tuple[int, int]:
    """How many connections there may be, and how many more asyncio may take at once: so that each can be refused.

    Raises:
        UserError: the process may not open enough files.
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
