"""The questions: every field of a config that has one is asked, unless a flag has answered it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from custom_llm.cli.fields import field_type, parse
from custom_llm.common.errors import UserError


def ask(
    title: str,
    config_class: type,
    values: dict[str, Any],
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    more: Callable[[dict[str, Any]], set[str]] | None = None,
) -> Any:
    """Ask for every field that has a question and is not in `values`; return the finished config.

    Enter and the end of input mean the default. A bad answer is explained in one line and asked again.

    Args:
        complete: what is known so far → the same with the values that other fields have then, which are their
            defaults as well.
        more: what is known so far → names of fields to ask for although they have only words and no question.

    Raises:
        UserError: the given values contradict each other and no question is left to mend it.
    """
    asked = [item for item in fields(config_class) if item.metadata["question"] and item.name not in values]
    if asked or more:
        print(title)
    for item in asked:
        values = _ask_one(item, config_class, values, complete)
    for item in fields(config_class) if more else ():
        if item.metadata["words"] and item.name not in values and item.name in more(complete(values)):
            values = _ask_one(item, config_class, values, complete)
    return build(config_class, complete(values))


def _ask_one(
    item: Any, config_class: type, values: dict[str, Any], complete: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    default = complete(values).get(item.name, item.default)
    while True:
        answer = _read_line(item.metadata["question"] or _prompt(item, default))
        try:
            value = parse(item, answer) if answer else default
            attempt = {**values, item.name: value}
            if answer is None:  # nobody is there to be asked again
                return attempt
            _check_together(config_class, attempt, complete)
            return attempt
        except ValueError as error:
            print(f"{error}; try again.")


def _prompt(item: Any, default: Any) -> str:
    """`Enter attention (mha, mqa, gqa, mla) (e.g., mha): `"""
    kind, _ = field_type(item)
    choices = ("yes", "no") if kind is bool else item.metadata["choices"]
    example = {True: "yes", False: "no"}[default] if kind is bool else default
    among = f" ({', '.join(choices)})" if choices else ""
    return f"Enter {item.metadata['words']}{among} (e.g., {example}): "


def _check_together(
    config_class: type, values: dict[str, Any], complete: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Raise ValueError if `values` contradict each other, whatever the fields not yet known will be."""
    if "n_embd" in values:  # any number of heads is a multiple of these
        config_class(**complete({"n_head": values.get("n_kv_heads") or 1, **values}))


def build(config_class: type, values: dict[str, Any]) -> Any:
    """The config of `values`.

    Raises:
        UserError: they contradict each other.
    """
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
