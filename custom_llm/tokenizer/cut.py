"""A stream of text in parts of the size one works on, cut where no tokenizer sees the difference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from custom_llm.tokenizer.base import END_OF_TEXT

# Where a text can be cut without changing its tokens, whichever of llama.cpp's pre-tokenizers reads them: behind a
# line break or before a space that stands alone between two visible characters, behind a document's end, and between a
# Chinese or Japanese letter and punctuation (such a text may have no other place in a million characters).
# (Several line breaks, or several spaces, belong together for some; and where <|endoftext|> is no token, |> belongs
# together with punctuation behind it.)
CUT = re.compile(
    rf"(?<=\S\n)(?=\S)|(?<=\S)(?= \S)|(?<={re.escape(END_OF_TEXT)})(?=[^\W_])"
    "|(?<=[\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff])(?=[、。！，？])"
)
# Characters without such a place after which a text is cut all the same, since memory ends. No writing has so many; in
# what is no writing, one token in millions becomes two.
LONGEST = 1 << 22


def rechunk(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Yield the text that `pieces` are of in parts of `size` characters and a little more, each cut at a CUT.

    >>> list(rechunk(["one tw", "o three\\nfour"], 6))
    ['one two', ' three\\n', 'four']
    """
    held, searched = "", 0  # no CUT begins before `searched` characters
    waiting: list[str] = []
    n_waiting = 0
    for piece in pieces:
        waiting.append(piece)
        n_waiting += len(piece)
        if n_waiting < size:  # joined all at once, since joining one by one takes the square of the time
            continue
        held, waiting, n_waiting = "".join([held, *waiting]), [], 0
        start = 0
        # The last characters wait for what comes after them.
        while end := _end(held, start, size, searched):
            yield held[start:end]
            start = end
        searched = max(0, len(held) - start - len(END_OF_TEXT) - 2)
        held = held[start:]
    held = "".join([held, *waiting])
    yield from split(held, size)


def split(text: str, size: int, cut: re.Pattern[str] = CUT) -> Iterator[str]:
    """Yield a whole text in such parts; `cut`: where, if not at a CUT."""
    start = 0
    while start < len(text):
        end = _end(text, start, size, cut=cut) or len(text)
        yield text[start:end]
        start = end


def _end(text: str, start: int, size: int, searched: int = 0, cut: re.Pattern[str] = CUT) -> int | None:
    """Where the part of `text` that begins at `start` ends; None where the text ends before."""
    last = start + size + LONGEST
    if found := cut.search(text, max(start + size, searched), last):
        return found.start()
    return last - len(_started(text[start:last])) if last < len(text) else None


def up_to(max_chars: int | None, pieces: Iterable[str]) -> Iterator[str]:
    """The first `max_chars` characters of the text that `pieces` are of, without a part of an `<|endoftext|>`.

    >>> "".join(up_to(5, ["One<|end", "oftext|>Two"]))
    'One'
    """
    if max_chars is None:
        yield from pieces
        return
    left, held = max_chars, ""
    for piece in pieces:
        text = (held + piece)[:left]
        held = _started(text)
        yield text.removesuffix(held)
        left -= len(text) - len(held)
        if len(held) == left:
            return
    yield held


def _started(text: str) -> str:
    """What at the end of `text` may be the beginning of an `<|endoftext|>`."""
    tail = text[1 - len(END_OF_TEXT) :]
    started = tail[tail.rfind("<") :]  # the last character where there is none
    return started if END_OF_TEXT.startswith(started) else ""
