"""How likely a model found each token: as numbers, as a table for people, as OpenAI's JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple, Protocol

from custom_llm.common.text import columns

NOTHING = "-"  # in a table, of what nothing stood before


class Score(NamedTuple):
    """A token of a text, and how likely the model found it before any sampling."""

    token: int
    spelled: bytes  # in UTF-8, maybe a part of a character; control tokens are written out
    logprob: float | None  # natural logarithm of its probability; None if nothing stood before it
    top: tuple[tuple[bytes, float], ...] = ()  # the likeliest tokens in its place, likeliest first, with theirs
    place: int = 0  # of the character in which it begins, in the `Piece` of text that has it


class Scored(Protocol):
    """A `Piece` of text, or what is like it."""

    text: str
    scores: Sequence[Score]


def completion_logprobs(pieces: Iterable[Scored], start: int = 0) -> dict[str, list]:
    """`tokens`, `token_logprobs`, `top_logprobs` and `text_offset`, in characters, of pieces of a text from `start` on.

    As in OpenAI's answers, the likeliest tokens are those that were asked for, and the token itself.
    """
    found: dict[str, list] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for piece in pieces:
        for score in piece.scores:
            token, likeliest = spelling(score.spelled), {spelling(data): logprob for data, logprob in score.top}
            found["tokens"].append(token)
            found["token_logprobs"].append(score.logprob)
            found["top_logprobs"].append(None if score.logprob is None else {**likeliest, token: score.logprob})
            found["text_offset"].append(start + score.place)
        start += len(piece.text)
    return found


def spelling(token: bytes) -> str:
    r"""A token as text; as OpenAI does it, the bytes of what is only a part of a character.

    >>> spelling("é".encode()[:1])
    'bytes:\\xc3'
    """
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def logprob_table(scores: Sequence[Score]) -> list[str]:
    """A line for each token: it, its logarithm, and the likeliest in its place with theirs.

    >>> logprob_table([Score(0, b"a", -0.5, ((b"a", -0.5),)), Score(1, b"bc", -12.25, ((b"a", -0.25),))])
    ['token  logprob  likeliest', "'a'     -0.500  'a' -0.500", "'bc'   -12.250  'a' -0.250"]
    """
    rows = [
        [
            repr(spelling(score.spelled)),
            NOTHING if score.logprob is None else f"{score.logprob:.3f}",
            *(f"{spelling(token)!r} {logprob:.3f}" for token, logprob in score.top),
        ]
        for score in scores
    ]
    table = [["token", "logprob", *(["likeliest"] if any(score.top for score in scores) else [])], *rows]
    widths = [max(map(columns, column)) for column in zip_longest(*table, fillvalue="")]
    lines = []
    for row in table:
        cells = [cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=False)]
        cells[1] = row[1].rjust(widths[1])
        lines.append("  ".join(cells).rstrip())
    return lines
