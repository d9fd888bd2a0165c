"""Texts as people and terminals may see them."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

SHOWN = 40  # characters of a value in an error message


def shown(value: Any) -> str:
    """A value as an error message shows it: in one line, and cut when it is long.

    >>> shown("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        text = f"of type {type(value).__name__}"
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def counted(n: int, unit: str) -> str:
    """A number of things.

    >>> counted(1, "token"), counted(2000, "token")
    ('1 token', '2,000 tokens')
    """
    return f"{n:,} {unit}{'' if n == 1 else 's'}"


def as_flag(name: str, value: Any) -> str:
    """What is typed to give an option this value.

    >>> as_flag("n_embd", 64), as_flag("moe", True), as_flag("moe", False)
    ('--n_embd 64', '--moe', '--no_moe')
    """
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {value}"


def has_half_pair(text: str) -> bool:
    """Whether `text` holds half a surrogate pair, which is no character and cannot be written as UTF-8."""
    try:
        text.encode("utf-16-le")  # the quickest way to look at every character
    except UnicodeEncodeError:
        return True
    return False


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """`text` as valid Unicode: bytes that a command line could not decode are decoded, or become U+FFFD."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that is no escaped byte
        data = text.encode("utf-8", "surrogatepass")
    return data.decode("utf-8", "replace")


def encoding_of(start: bytes) -> str:
    """The encoding of what begins so, by its byte-order mark; UTF-8 where there is none."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # before UTF-16's, which begins like it
        return "utf-32"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def unix_lines(text: str) -> str:
    r"""`text` with every line ending in \n, whatever wrote it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def as_read(text: str | bytes, errors: str = "strict") -> str:
    r"""A text from outside as a training reads it: valid Unicode, no byte-order mark, every line ending in \n.

    Bytes are decoded by their byte-order mark. errors: as of bytes.decode; "strict" raises UnicodeDecodeError.

    >>> as_read("\ufeffone\r\ntwo"), as_read("one".encode("utf-16"))
    ('one\ntwo', 'one')
    """
    text = text.decode(encoding_of(text), errors) if isinstance(text, bytes) else clean(text)
    return unix_lines(text.removeprefix("\ufeff"))


def without_added_spaces(pieces: Iterable[tuple[bytes, bool]]) -> bytes:
    """What a text was before a tokenizer put a space before it, and one behind each of its special tokens.

    pieces: of the text, and whether each is a special token.
    """
    spelled, begins = [], True
    for piece, is_special in pieces:
        spelled.append(piece.removeprefix(b" ") if begins and not is_special else piece)
        begins = is_special
    return b"".join(spelled)


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor or change its state, from a file of a stranger."""
    return CONTROL.sub("", text)


def columns(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
