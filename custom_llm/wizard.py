"""Questions and flags from the fields of a config: each field is a flag, those with a question are asked."""

from __future__ import annotations

import sys
from argparse import Action, Namespace
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from custom_llm.cli import StepParser
from custom_llm.errors import UserError
from custom_llm.options import YES_OR_NO, check_value, field_type, in_words, shown

METAVARS = {int: "N", float: "X", str: "TEXT"}


class _YesOrNo(Action):
    """--flag and --no_flag."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__([*option_strings, f"--no_{dest}"], dest, nargs=0, help=help)

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, not option_string.startswith("--no_"))


def add_flags(parser: StepParser, config_class: type, title: str) -> None:
    """Give `parser` a group of flags, one per field, absent from the result unless it was given."""
    group = parser.add_argument_group(title)
    for item in fields(config_class):
        kind, _ = field_type(item)
        text = item.metadata["help"].replace("%", "%%")  # argparse formats it
        if kind is bool:
            text += f" (default: {'yes' if item.default else 'no'})"
            group.add_argument(f"--{item.name}", action=_YesOrNo, help=text)
            continue
        if item.default is not None:
            text += f" (default: {item.default})"
        choices = item.metadata["choices"]
        # Parsed by `given`, so that the flag, the prompt and the file of --config share one check and one wording.
        parser.checks[item.name] = partial(parse, item)
        group.add_argument(f"--{item.name}", metavar="|".join(choices) if choices else METAVARS[kind], help=text)


def given(config_class: type, args: Namespace) -> dict[str, Any]:
    """The values of the flags that were given, and of what the file of --config gives.

    Raises:
        UserError: a value that the field cannot have, naming the flag.
    """
    values = {}
    for item in fields(config_class):
        text = getattr(args, item.name)
        if text is None:
            continue
        try:
            values[item.name] = parse(item, text) if isinstance(text, str) else text
        except ValueError as error:
            raise UserError(f"--{error}") from None
    return values


def as_flag(name: str, value: Any) -> str:
    """What was typed to give a field this value: `--n_embd 64`, `--moe`, `--no_moe`."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {value}"


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


def parse(item: Any, text: str) -> Any:
    """`text` as the field's value.

    Raises:
        ValueError: not such a value, with the field's name and the rule.
    """
    kind, _ = field_type(item)
    try:
        value = YES_OR_NO[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        words = "yes or no" if kind is bool else in_words(kind)
        raise ValueError(f"{item.name} {shown(text)} is not {words}") from None
    check_value(item, value)
    return value
