"""Rows of a dataset to the text of its documents, piece by piece, so that a text of any size needs little memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from custom_llm.tokenizer.base import END_OF_TEXT

# ` = Title = ` on a line of WikiText, but not ` = = Section = = `
HEADING = re.compile(r" ?= (?!=)[^\n]*(?<!=) = ?\n?")


def documents(rows: Iterable[str]) -> Iterator[str]:
    """A row is a document.

    >>> "".join(documents(["One.", " ", "Two."]))
    'One.<|endoftext|>Two.'
    """
    first = True
    for row in rows:
        if row and not row.isspace():
            if not first:
                yield END_OF_TEXT
            yield row
            first = False


def lines(rows: Iterable[str]) -> Iterator[str]:
    """A row is a line of one long text."""
    return (row if row.endswith("\n") else row + "\n" for row in rows)


def articles(rows: Iterable[str]) -> Iterator[str]:
    """A row is a line, and ` = Title = ` begins a document, as in WikiText.

    >>> "".join(articles([" = A = \\n", "", " = = B = = ", "", " = C = "]))
    ' = A = \\n\\n = = B = = \\n<|endoftext|> = C = \\n'
    """
    begun, blank = False, 0
    for line in lines(rows):
        if line.isspace():  # held back, since none stand at a document's end
            blank += begun
            continue
        if begun:
            yield END_OF_TEXT if HEADING.fullmatch(line) else "\n" * blank
        yield line
        begun, blank = True, 0


def parts(rows: Iterable[str]) -> Iterator[str]:
    """Rows follow each other without a break."""
    return iter(rows)


CUTTERS: dict[str, Callable[[Iterable[str]], Iterator[str]]] = {
    cutter.__name__: cutter for cutter in (documents, lines, articles, parts)
}
