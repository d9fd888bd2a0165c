"""A YAML file as mappings, lists and texts, with the lines they stand in, and nothing else.

What YAML would make of a text is left to the reader, so that 1e-4 (a text in YAML 1.1), 010 (8), 2024-01-01 (a date)
and no (False) are what was written. The file is read event by event, never as objects: no tag is obeyed, nothing is
nested deeper than its reader wants, an alias repeats a single value, and a key that stands there twice is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.text import shown

MAX_BYTES = 1 << 20  # of a file, and of the text that its aliases repeat
NULL = ("", "~", "null", "Null", "NULL")
WAY_OUT = "give options, one a line, such as learning_rate: 1e-4"
TAGS = {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool"))}


@dataclass(frozen=True)
class Node:
    """A value of the file, and the line it begins in. The text None is YAML's null, which says nothing."""

    value: str | list[Node] | dict[str, Node] | None
    line: int


def read_yaml(path: str, depth: int) -> dict[str, Node]:
    """The keys and values of a file, in order.

    Args:
        path: the file that --config names.
        depth: how deep mappings and lists may be nested; 1 is a mapping of single values.

    Raises:
        UserError: it cannot be read, is not YAML, or more than such a mapping; with the line.
    """
    return _Document(path).read(depth)


class _Document:
    """The one document of a file, built from YAML's events."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._anchors: dict[str, str | None] = {}
        self._repeated = 0  # characters that aliases stand for
        self._events: Iterator[yaml.Event] = iter(())

    def read(self, depth: int) -> dict[str, Node]:
        """See `read_yaml`."""
        text = self._read_text()
        try:
            with closing(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))) as self._events:
                return self._read_document(depth)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
            line = mark.line + 1 if mark else 1
            if mark and "\t" in "".join(text.splitlines()[mark.line : line]):
                reason += "; there is a tab in the line, and YAML is indented with spaces"
            self._fail(f"not YAML: {reason}", line if mark else None)

    def _read_text(self) -> str:
        try:
            with Path(self._path).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                self._fail(f"more than {MAX_BYTES:,} bytes; that is no file of options")
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._fail(f"not UTF-8 text: {error.reason}")
        except OSError as error:
            raise UserError(f"--config {describe_os_error(error)}; give a YAML file of options") from None

    def _read_document(self, depth: int) -> dict[str, Node]:
        next(self._events)  # the stream begins
        event = next(self._events)
        root = None if isinstance(event, yaml.StreamEndEvent) else self._node(next(self._events), depth)
        if root is None or root.value is None:
            self._fail(f"it is empty; {WAY_OUT}")
        if not isinstance(root.value, dict):
            self._fail(f"not options; {WAY_OUT}", root.line)
        next(self._events)  # the document ends
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._fail("a second document begins (---); give one file for each run", event.start_mark.line + 1)
        return root.value

    def _node(self, event: yaml.Event, depth: int) -> Node:
        """The value that begins with this event. depth: how deep it may be nested."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return Node(self._alias(event.anchor, line), line)
        if event.tag not in TAGS:
            self._fail(f"the tag {shown(event.tag)} is not read here; leave it out", line)
        if isinstance(event, yaml.ScalarEvent):
            is_plain, _ = event.implicit
            text = None if is_plain and event.value in NULL else event.value
            if event.anchor:
                self._anchors[event.anchor] = text
            return Node(text, line)
        if depth == 0:
            self._fail("lists or mappings are nested too deep", line)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node([self._node(item, depth - 1) for item in self._until(yaml.SequenceEndEvent)], line)
        return Node(self._mapping(depth), line)

    def _mapping(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for event in self._until(yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent) or event.tag not in TAGS:
                self._fail("a key is not the plain name of an option or section", line)
            key = event.value
            if key in found:
                self._fail(f"{shown(key)[1:-1]} stands there twice, first in line {lines[key]}", line)
            if key == "<<":
                self._fail("<< (merging) is not read here; write the options out", line)
            lines[key] = line
            found[key] = self._node(next(self._events), depth - 1)
        return found

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _alias(self, name: str, line: int) -> str | None:
        if name not in self._anchors:
            self._fail(f"*{name} repeats no single value of the lines above", line)
        text = self._anchors[name]
        self._repeated += len(text or "")
        if self._repeated > MAX_BYTES:
            self._fail("its aliases repeat too much text", line)
        return text

    def _fail(self, reason: str, line: int | None = None) -> NoReturn:
        where = self._path if line is None else f"{self._path}, line {line}"
        raise UserError(f"{where}: {reason}")
