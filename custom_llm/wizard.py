"""Questions and flags from the fields of a config: each field is a flag, those with a question are asked."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import fields
from typing import Any

from custom_llm.cli import ArgumentParser
from custom_llm.errors import UserError
from custom_llm.options import check_value, field_type, in_words

METAVARS = {int: "N", float: "X", str: "TEXT"}


def add_flags(parser: ArgumentParser, config_class: type, title: str) -> None:
    """Give `parser` a group of flags, one per field, absent from the result unless it was given."""
    group = parser.add_argument_group(title)
    for item in fields(config_class):
        kind, _ = field_type(item)
        text = item.metadata["help"]
        if kind is bool:
            group.add_argument(f"--{item.name}", action="store_true", default=None, help=text)
            continue
        if item.default is not None:
            text += f" (default: {item.default})"
        choices = item.metadata["choices"]
        # Parsed by `given`, so that the flag and the prompt share one check and one wording.
        group.add_argument(f"--{item.name}", metavar="|".join(choices) if choices else METAVARS[kind], help=text)


def given(config_class: type, args: Namespace) -> dict[str, Any]:
    """The values of the flags that were given.

    Raises:
        UserError: a value that the field cannot have, naming the flag.
    """
    values = {}
    for item in fields(config_class):
        text = getattr(args, item.name)
        if text is None:
            continue
        try:
            values[item.name] = text if isinstance(text, bool) else parse(item, text)
        except ValueError as error:
            raise UserError(f"--{error}") from None
    return values


def ask(title: str, config_class: type, values: dict[str, Any]) -> Any:
    """Ask for every field that has a question and is not in `values`; return the finished config.

    Enter and the end of input mean the default. A bad answer is explained in one line and asked again.

    Raises:
        UserError: the given values contradict each other and no question is left to mend it.
    """
    questions = [item for item in fields(config_class) if item.metadata["question"] and item.name not in values]
    if questions:
        print(title)
    for item in questions:
        values = _ask_one(item, config_class, values)
    return _build(config_class, values)


def _ask_one(item: Any, config_class: type, values: dict[str, Any]) -> dict[str, Any]:
    while True:
        answer = _read_line(item.metadata["question"])
        try:
            value = parse(item, answer) if answer else item.default
            attempt = {**values, item.name: value}
            if answer is None:  # nobody is there to be asked again
                return attempt
            _check_together(config_class, attempt)
            return attempt
        except ValueError as error:
            print(f"{error}; try again.")


def _check_together(config_class: type, values: dict[str, Any]) -> None:
    """Raise ValueError if `values` contradict each other, whatever the fields not yet known will be."""
    if {"n_embd", "n_head"} <= set(values):
        config_class(**values)


def _build(config_class: type, values: dict[str, Any]) -> Any:
    try:
        return config_class(**values)
    except ValueError as error:
        raise UserError(f"{error}") from None


def _read_line(prompt: str) -> str | None:
    """The stripped answer, or None at the end of input."""
    try:
        answer = input(prompt)
    except EOFError:
        print()
        return None
    except UnicodeDecodeError:
        return "\ufffd"
    if not sys.stdin.isatty():
        print()  # a typed answer ends its line by itself, a piped one does not
    return answer.strip()


def parse(item: Any, text: str) -> Any:
    """`text` as the field's value.

    Raises:
        ValueError: not such a value, with the field's name and the rule.
    """
    kind, _ = field_type(item)
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{item.name} {text!r} is not {in_words(kind)}") from None
    check_value(item, value)
    return value
