"""A YAML file as mappings, lists and texts, with the lines they stand in, and nothing else.

What YAML would make of a text is left to the reader, so that 1e-4 (a text in YAML 1.1), 010 (8), 2024-01-01 (a date)
and no (False) are what was written. The file is read event by event, since `yaml.compose` ends in a segmentation fault
where a hundred thousand brackets are nested: no tag is obeyed, nothing is deeper than a list in a section, an alias
repeats a single value, and a key that stands there twice is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import yaml

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.text import shown

DEPTH = 3  # the file, a section, a list
MAX_BYTES = 1 << 20  # of a file, and of the text that its aliases repeat
NULL = ("", "~", "null", "Null", "NULL")
WAY_OUT = "give options, one a line, such as learning_rate: 1e-4"
TAGS = {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool"))}


class Node(NamedTuple):
    """A value of the file, and the line it begins in. The value None is YAML's null, which says nothing."""

    value: str | list[Node] | dict[str, Node] | None
    line: int


def read_yaml(path: str) -> dict[str, Node]:
    """The keys and values of the file that --config names, in order; UserError, with the line, for anything else."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: more than {MAX_BYTES:,} bytes; that is no file of options")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise UserError(f"--config {describe_os_error(error)}; give a YAML file of options") from None
    try:
        return _Document(path, text).read()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        if mark and "\t" in "".join(text.splitlines()[mark.line : mark.line + 1]):
            reason += "; there is a tab in the line, and YAML is indented with spaces"
        where = f"{path}, line {mark.line + 1}" if mark else path
        raise UserError(f"{where}: not YAML: {reason}") from None


class _Document:
    """The one document of a file, built from YAML's events."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._anchors: dict[str, str | None] = {}
        self._repeated = 0  # characters that aliases stand for

    def read(self) -> dict[str, Node]:
        _, start = next(self._events), next(self._events)  # of the stream, of a document
        root = None if isinstance(start, yaml.StreamEndEvent) else self._node(next(self._events), DEPTH)
        if root is None or root.value is None:
            raise UserError(f"{self._path}: it is empty; {WAY_OUT}")
        if not isinstance(root.value, dict):
            self._fail(f"not options; {WAY_OUT}", root.line)
        _, end = next(self._events), next(self._events)
        if not isinstance(end, yaml.StreamEndEvent):
            self._fail("a second document begins (---); give one file for each run", end.start_mark.line + 1)
        return root.value

    def _node(self, event: yaml.Event, depth: int) -> Node:
        """The value that begins with this event. depth: how deep it may be nested."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                self._fail(f"*{event.anchor} repeats no single value of the lines above", line)
            text = self._anchors[event.anchor]
            self._repeated += len(text or "")
            if self._repeated > MAX_BYTES:
                self._fail("its aliases repeat too much text", line)
            return Node(text, line)
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
        found: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for event in self._until(yaml.MappingEndEvent):
            at = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent) or event.tag not in TAGS:
                self._fail("a key is not the plain name of an option or section", at)
            key = event.value
            if key in found:
                self._fail(f"{shown(key)[1:-1]} stands there twice, first in line {lines[key]}", at)
            if key == "<<":
                self._fail("<< (merging) is not read here; write the options out", at)
            lines[key] = at
            found[key] = self._node(next(self._events), depth - 1)
        return Node(found, line)

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _fail(self, reason: str, line: int) -> NoReturn:
        raise UserError(f"{self._path}, line {line}: {reason}")
