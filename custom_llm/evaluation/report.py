"""What was found, as a table for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Section:
    """A table with what there is to say about it.

    Attributes:
        rows: texts; the first `n_names` of each row are words, the others figures.
        lines: sentences under the table.
        examples: title → a text that is shown as it is.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]]
    lines: list[str] = field(default_factory=list)
    examples: list[tuple[str, str]] = field(default_factory=list)
    n_names: int = 1


def as_text(section: Section) -> str:
    """For a terminal: columns as wide as their widest entry, words on the left and figures on the right."""
    table = [section.columns, *section.rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [section.title]
    for row in table:
        cells = list(map(str.rjust, row, widths))
        cells[: section.n_names] = map(str.ljust, row[: section.n_names], widths)
        lines.append("  ".join(cells).rstrip())
    lines += section.lines
    for title, text in section.examples:
        lines += [f"{title}:", *(f"  | {line}" for line in _shown_lines(text))]
    return "\n".join(lines) + "\n"


def as_markdown(heading: str, sections: Sequence[Section]) -> str:
    """The same for a page."""
    lines = [f"# {_escaped(heading)}"]
    for section in sections:
        lines += ["", f"## {_escaped(section.title)}", "", _row(section.columns)]
        lines.append("|---" * section.n_names + "|---:" * (len(section.columns) - section.n_names) + "|")
        lines += map(_row, section.rows)
        for line in section.lines:
            lines += ["", _escaped(line)]
        for title, text in section.examples:
            # Indented code ends nowhere but at a line that is not indented, whatever backticks there are in it.
            lines += ["", f"{_escaped(title)}:", "", *(f"    {line}" for line in _shown_lines(text))]
    return "\n".join(lines) + "\n"


def as_json(values: Any) -> str:
    """Plain values as JSON; numbers that it does not have (nan, infinity) are null."""
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    text = "".join(f"\\{char}" if char in "\\`*[]<>|#" else char for char in text)
    return " ".join(text.split())


def _shown_lines(text: str) -> list[str]:
    """Lines without what would move the cursor of a terminal."""
    return ["".join(char if char.isprintable() else "\ufffd" for char in line) for line in text.split("\n")]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
