"""Conversations as people keep them, recognised, and written as the plain text they are learnt as."""

from __future__ import annotations

import re
from typing import Any

# [12.03.24, 21:04:11] Mia: …   and   12/3/24, 9:04 PM - Mia: …
WHATSAPP = re.compile(
    r"^\u200e?\[?\d{1,4}[./-]\d{1,2}[./-]\d{2,4},? \d{1,2}:\d\d(?::\d\d)?"
    r"(?:[ \u202f][AaPp]\.?[Mm]\.?)?(?:\] | - )[^:\n]+: ",
    re.MULTILINE,
)
SPEAKER, SAID = ("role", "from", "speaker", "author"), ("content", "value", "text")


def as_text(value: Any) -> str | None:
    """A text as it is, a list of messages as a line for each; None where it is neither.

    >>> as_text([{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}])
    'user: Hi!\\nassistant: Hello.\\n'
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return None
    lines = [_line(message) for message in value]
    return None if None in lines else "".join(lines)


def _line(message: Any) -> str | None:
    """What one said; "" if nothing."""
    if not isinstance(message, dict):
        return None
    speaker = next((message[key] for key in SPEAKER if isinstance(message.get(key), str)), None)
    key = next((key for key in SAID if key in message), None)
    if speaker is None or key is None:
        return None
    said = message[key]
    if isinstance(said, list):  # texts and pictures
        said = " ".join(part["text"] for part in said if isinstance(part, dict) and isinstance(part.get("text"), str))
    return f"{speaker}: {said}\n" if isinstance(said, str) and said else ""
