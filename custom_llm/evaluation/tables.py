"""What was found: tables for a terminal and for a page of Markdown, and the same figures as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Table:
    """A table with what there is to say about it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]]
    lines: list[str] = field(default_factory=list)  # sentences under the table
    examples: list[tuple[str, str]] = field(default_factory=list)  # title, and a text that is shown as it is
    n_names: int = 1  # so many of each row are words, the others figures
    values: dict[str, Any] = field(default_factory=dict)  # the figures for programs, and more of them: plain, by name


def as_text(table: Table) -> str:
    """For a terminal: columns as wide as their widest entry, words on the left and figures on the right."""
    rows = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [table.title]
    for row in rows:
        cells = list(map(str.rjust, row, widths))
        cells[: table.n_names] = map(str.ljust, row[: table.n_names], widths)
        lines.append("  ".join(cells).rstrip())
    lines += table.lines
    for title, text in table.examples:
        lines += [f"{title}:", *(f"  | {line}" for line in _shown_lines(text))]
    return "\n".join(lines) + "\n"


def as_markdown(heading: str, tables: Sequence[Table]) -> str:
    """The same for a page."""
    lines = [f"# {_escaped(heading)}"]
    for table in tables:
        lines += ["", f"## {_escaped(table.title)}", "", _markdown_row(table.columns)]
        lines.append("|---" * table.n_names + "|---:" * (len(table.columns) - table.n_names) + "|")
        lines += map(_markdown_row, table.rows)
        for line in table.lines:
            lines += ["", _escaped(line)]
        for title, text in table.examples:
            # Indented code ends nowhere but at a line that is not indented, whatever backticks there are in it.
            lines += ["", f"{_escaped(title)}:", "", *(f"    {line}" for line in _shown_lines(text))]
    return "\n".join(lines) + "\n"


def as_json(values: Any) -> str:
    """Plain values as JSON; numbers that it does not have (nan, infinity) are null."""
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
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
