"""The questions: every field of a config that has one is asked, unless a flag has answered it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

from custom_llm.cli.fields import field_type, parse
from custom_llm.common.errors import UserError
from custom_llm.common.notes import is_terminal

Complete = Callable[[dict[str, Any]], dict[str, Any]]


def ask(
    title: str, config_class: type, values: dict[str, Any], complete: Complete = dict,
    more: Callable[[dict[str, Any]], set[str]] | None = None,
) -> Any:  # fmt: skip
    """Ask for every field that has a question and is not in `values`; return the finished config.

    Enter and the end of input mean the default. A bad answer is explained in one line and asked again. UserError where
    the given values contradict each other and no question is left to mend it.

    Args:
        complete: what is known so far → the same with the values that other fields then have by default.
        more: what is known so far → names of fields to ask for although they have only words and no question.
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


def build(config_class: type, values: dict[str, Any]) -> Any:
    """The config of `values`; UserError where they contradict each other."""
    try:
        return config_class(**values)
    except ValueError as error:
        raise UserError(f"{error}") from None


def _ask_one(item: Field, config_class: type, values: dict[str, Any], complete: Complete) -> dict[str, Any]:
    """`values` and the answer."""
    default = complete(values).get(item.name, item.default)
    question = item.metadata["question"]
    if question is None:  # `Enter attention (mha, mqa, gqa, mla) (e.g., mha): `
        is_bool = field_type(item)[0] is bool
        choices = ("yes", "no") if is_bool else item.metadata["choices"]
        among = f" ({', '.join(choices)})" if choices else ""
        example = {True: "yes", False: "no"}[default] if is_bool else default
        question = f"Enter {item.metadata['words']}{among} (e.g., {example}): "
    while True:
        answer = _read_line(question)
        try:
            attempt = {**values, item.name: parse(item, answer) if answer else default}
            # Whatever is not known yet will be: any number of heads is a multiple of these. At the end of input nobody
            # is there to be asked again.
            if answer is not None and "n_embd" in attempt:
                config_class(**complete({"n_head": attempt.get("n_kv_heads") or 1, **attempt}))
            return attempt
        except ValueError as error:
            print(f"{error}; try again.")


def _read_line(prompt: str) -> str | None:
    """The stripped answer, or None at the end of input."""
    try:
        answer = input(prompt)
    except EOFError:
        print()
        return None
    except UnicodeDecodeError:
        return "\ufffd"
    if not is_terminal(sys.stdin):
        print()  # a typed answer ends its line by itself, a piped one does not
    return answer.strip()
