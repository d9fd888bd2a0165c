"""A stream of text in parts of the size one works on, cut where no tokenizer sees the difference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from custom_llm.data.tokenizer import END_OF_TEXT

# Where a text can be cut without changing its tokens, whichever of llama.cpp's pre-tokenizers reads them: behind a
# line break or before a space that stands alone between two visible characters, and behind a document's end.
# (Several line breaks, or several spaces, belong together for some; and where <|endoftext|> is no token, |> belongs
# together with punctuation behind it.)
CUT = re.compile(rf"(?<=\S\n)(?=\S)|(?<=\S)(?= \S)|(?<={re.escape(END_OF_TEXT)})(?=[^\W_])")


def rechunk(pieces: Iterable[str], size: int) -> Iterator[str]:
    """Yield the text that `pieces` are of in parts of `size` characters and a little more, each cut at a CUT.

    What has no such place stays in one part, however long it is.

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
        while cut := CUT.search(held, max(start + size, searched)):
            yield held[start : cut.start()]
            start = cut.start()
        searched = max(0, len(held) - start - len(END_OF_TEXT) - 2)
        held = held[start:]
    held = "".join([held, *waiting])
    yield from split(held, size)


def split(text: str, size: int) -> Iterator[str]:
    """Yield a whole text in such parts."""
    start = 0
    while start < len(text):
        cut = CUT.search(text, start + size)
        end = cut.start() if cut else len(text)
        yield text[start:end]
        start = end
