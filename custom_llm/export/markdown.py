"""Words that were typed by anybody, in Markdown that shows them and does nothing else with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from custom_llm.export.about import clean_line

# An underscore within a word, as in n_embd, has none.
_MEANS_SOMETHING = re.compile(r"([\\`*{}\[\]()<>#!|~&$@:]|(?<![^\W_])_|_(?![^\W_]))")


def escape(text: object) -> str:
    """`text` in one line, without a meaning in Markdown or HTML.

    >>> escape("a|b <b>`x`")
    'a\\\\|b \\\\<b\\\\>\\\\`x\\\\`'
    """
    return _MEANS_SOMETHING.sub(r"\\\1", clean_line(str(text)))


def fenced(code: str, language: str = "") -> str:
    """A block of code, whatever is in it."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; the cells of `rows` are escaped."""
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings(values: Mapping[str, object]) -> str:
    """A table of names and values."""
    return table(("setting", "value"), list(values.items()))
