"""Many prompts from a file, each a line, continued one after the other by a model that is loaded once."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.notes import is_terminal, say
from custom_llm.common.progress import Progress
from custom_llm.common.text import as_read, shown
from custom_llm.inference.settings import INTERRUPTED, NAMES, Settings
from custom_llm.inference.text import left_out
from custom_llm.inference.write import Text, print_text

if TYPE_CHECKING:
    from custom_llm.inference.engine import Engine, Query

JSON_STARTS = ("{", "[", '"')  # a line that begins otherwise is a prompt as it stands
SECONDS_UNTIL_SHOWN = 1.0  # before that no bar is worth its flicker


@dataclass(frozen=True)
class Request:
    """A prompt, how it is to be continued, and where it stands: "prompts.jsonl, line 3"."""

    prompt: str
    settings: Settings
    place: str


def read_requests(path: str, settings: Settings) -> list[Request]:
    """The lines of a file: JSON objects with `prompt` and maybe settings of its own, JSON strings, or plain text.

    settings: count where a line says nothing else. Empty lines are left out. Raises UserError when the file cannot be
    read or holds nothing, or a line is wrong, by number.
    """
    try:
        lines = as_read(Path(path).read_bytes()).split("\n")
    except UnicodeDecodeError as error:
        begin = error.object.rfind(b"\n", 0, error.start)
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {number}: not {error.encoding.upper()} (byte {error.start - begin})") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = describe_os_error(error) if isinstance(error, OSError) else f"{error}"
        raise UserError(f"--prompts {reason}; give a file with a prompt on each line") from None
    requests = []
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        try:
            if line.strip():
                requests.append(_request(line, settings, place))
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
    if not requests:
        raise UserError(f"--prompts {path} holds no prompts; write one on each line")
    return requests


def write_all(engine: Engine, requests: Sequence[Request], in_json: bool) -> list[Text]:
    """Write a text for each request to stdout, up to one that Ctrl-C ends; how far it is goes to stderr.

    Raises UserError when settings of a request do not fit the model; before anything is written, if that can be told.
    """
    first_with: dict[str | None, Request] = {}
    for request in requests:
        first_with.setdefault(request.settings.sampling.grammar, request)
    for request in first_with.values():
        with _located(request):
            engine.check(request.settings.sampling, request.settings.ignore_eos)
    texts: list[Text] = []
    with contextlib.ExitStack() as stack:
        # Where the texts themselves are seen, they tell how far it is.
        progress = None if is_terminal(sys.stdout) else stack.enter_context(Progress("texts", SECONDS_UNTIL_SHOWN))
        for number, request in enumerate(requests, 1):
            if len(requests) > 1 and not in_json:
                print(f"--- {number} of {len(requests)} ---", flush=True)
            with _located(request):
                texts.append(print_text(engine, request.prompt, request.settings, in_json, partial(_warn, request)))
            if texts[-1].finish_reason == INTERRUPTED:
                break
            if progress is not None:
                progress.update(number / len(requests), f"{number} of {len(requests)}")
    return texts


def _warn(request: Request, query: Query) -> None:
    if message := left_out(query.unknown):
        say(f"warning: {request.place}: {message}")


@contextlib.contextmanager
def _located(request: Request) -> Iterator[None]:
    """Name the line in a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{request.place}: {error}") from None


def _request(line: str, settings: Settings, place: str) -> Request:
    if not line.lstrip().startswith(JSON_STARTS):
        return Request(line, settings, place)
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"not JSON ({error.msg}, column {error.colno}); a prompt that begins with {', '.join(JSON_STARTS)} is "
            "written in quotes, as JSON"
        ) from None
    except (ValueError, RecursionError):
        raise UserError("not JSON that can be read: a number is too long, or it is nested too deeply") from None
    if isinstance(value, str):
        return Request(value, settings, place)
    if not isinstance(value, dict):
        raise UserError("a list; give an object with a prompt, or a text in quotes")
    values = {name: item for name, item in value.items() if item is not None}
    if "prompt" not in values:
        raise UserError(f"there is no prompt; beside it there may be {', '.join(NAMES)}")
    prompt = values.pop("prompt")
    if not isinstance(prompt, str):
        raise UserError(f"prompt {shown(prompt)} is not a text")
    return Request(prompt, settings.changed(values), place)
