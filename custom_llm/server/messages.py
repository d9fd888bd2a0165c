"""What the messages of a chat say, sent by a program or sent back by it as it was answered."""

from __future__ import annotations

from typing import Any

from custom_llm.common.text import as_read, shown
from custom_llm.server.http.errors import ApiError, refused

ROLES = ("system", "developer", "user", "assistant")
FIELDS = {"role", "content", "refusal"}
WITHOUT_TEXT = {"name", "annotations", "reasoning_content"}  # fields that change no text
UNSUPPORTED = {"audio", "function_call", "tool_calls"}  # unless they are empty
TEXTS = {"text": "text", "refusal": "refusal"}  # type of a part → where its text is


def given(value: Any) -> Any:
    """An object without what is null in it, which means: not given. All else as it is."""
    return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


def message_text(message: Any, where: str) -> str | None:
    """The text of a message; None where it has none. Raises ApiError, which says `where`, for what is not text.

    In an answer of OpenAI's shape what there is not is null, or an empty array, and a refusal stands in for content.
    """
    if not isinstance(message, dict):
        raise _wrong(where, "is not an object with role and content")
    message = given(message)
    for name, value in message.items():
        if name in UNSUPPORTED:
            if value not in ([], {}):
                raise _wrong(f"{where}.{name}", "is not supported by this server, whose models write text only")
        elif name not in FIELDS | WITHOUT_TEXT:
            raise _wrong(f"{where}.{shown(name)[1:-1]}", "is not a field of a message")
    role = message.get("role")
    if role not in ROLES:
        raise _wrong(f"{where}.role", f"is not one of {', '.join(ROLES)}")
    content = message.get("content", message.get("refusal"))
    if content is None and role != "assistant":
        raise _wrong(f"{where}.content", "is missing")
    return content if content is None else as_read(content_text(content, f"{where}.content"))


def content_text(content: Any, where: str) -> str:
    """A text, or an array of parts, as one text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, "is neither a text nor an array of parts")
    texts = []
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise _wrong(f"{where}.{place}", 'is no part such as {"type": "text", "text": "…"}')
        if kind not in TEXTS:
            raise _wrong(f"{where}.{place}", f"is of type {shown(kind)}; this server reads text only")
        text = part.get(TEXTS[kind])
        if not isinstance(text, str):
            raise _wrong(f"{where}.{place}.{TEXTS[kind]}", "is not a text")
        texts.append(text)
    return "".join(texts)


def _wrong(place: str, message: str) -> ApiError:
    error = refused(place, message)
    error.param = "messages"
    return error
