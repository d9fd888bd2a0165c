"""Text on its way in and out of a model."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from custom_llm.inference.scores import Score

MAX_UNKNOWN_SHOWN = 10


def left_out(unknown: Sequence[str]) -> str | None:
    """What a person should know about the characters that the model does not have, if there are any."""
    if not unknown:
        return None
    named = ", ".join(map(repr, unknown[:MAX_UNKNOWN_SHOWN]))
    more = len(unknown) - MAX_UNKNOWN_SHOWN
    return f"not in the model's vocabulary, left out: {named}" + (f" and {more} more" if more > 0 else "")


class Piece(NamedTuple):
    """Whole characters, and the scores of the tokens that begin in them (if they were asked for)."""

    text: str
    scores: tuple[Score, ...] = ()


def whole_characters(tokens: Iterable[tuple[bytes, Score | None]]) -> Iterator[Piece]:
    """The text of tokens, of which each is some bytes and maybe a score, in pieces; what is no UTF-8 as U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    scores: list[Score] = []
    for data, score in tokens:
        text = decoder.decode(data[:1])
        if score is not None:
            # Its first byte is in the last of the characters, or begins or continues the one that is to come.
            place = len(text) if not data or decoder.getstate()[0] else len(text) - 1
            scores.append(score._replace(place=place))
        if text := text + decoder.decode(data[1:]):
            yield Piece(text, tuple(scores))
            scores = []
    rest = decoder.decode(b"", final=True)
    if rest or scores:
        yield Piece(rest, tuple(scores))


class StopStrings:
    """Ends a text before the first of some strings; `found` tells whether there was one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings, self.found = strings, False

    def cut(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Pass `pieces` on up to the first of the strings, holding back those in which one could begin."""
        if not self._strings:
            yield from pieces
            return
        held: deque[Piece] = deque()
        for piece in pieces:
            held.append(piece)
            text = "".join(each.text for each in held)
            places = [place for string in self._strings if (place := text.find(string)) >= 0]
            if places:
                self.found = True
                room = min(places)
                for each in held:
                    if room > 0:
                        yield Piece(each.text[:room], tuple(score for score in each.scores if score.place < room))
                    room -= len(each.text)
                return
            safe = len(text) - max(_overlap(text, string) for string in self._strings)
            while held and len(held[0].text) <= safe:
                safe -= len(held[0].text)
                yield held.popleft()
        yield from held


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of `text` that is a beginning of `string`, but not all of it."""
    return next(n for n in range(min(len(text), len(string) - 1), -1, -1) if text.endswith(string[:n]))
