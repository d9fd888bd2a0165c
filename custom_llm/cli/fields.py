"""Fields of a config that know their help, their question, their bounds and their choices; and the flags they make."""

from __future__ import annotations

from argparse import Action, Namespace
from dataclasses import field, fields
from functools import partial
from typing import Any

from custom_llm.cli.parser import StepParser
from custom_llm.common.errors import UserError
from custom_llm.common.text import shown

YES_OR_NO = dict.fromkeys(("yes", "y", "true", "on"), True) | dict.fromkeys(("no", "n", "false", "off"), False)


def option(
    default: Any,
    help: str,
    *,
    question: str | None = None,
    words: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with what a command line and a prompt need to know about it.

    Args:
        default: value when nothing is said.
        help: one line for `--help`.
        question: the exact prompt, or None when the option is not always asked.
        words: what the option is called when all the options are asked, or None when it is a flag only.
        low, high: inclusive bounds of a number.
        choices: the allowed words.
    """
    about = {"help": help, "question": question, "words": words, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=about)


def field_type(item: Any) -> tuple[type, bool]:
    """(type, may be None) of a config field: `int | None` is (int, True)."""
    name, _, optional = item.type.partition(" | ")
    return {"int": int, "float": float, "str": str, "bool": bool}[name], bool(optional)


def check_fields(config: Any) -> None:
    """Raise ValueError for the first field of the wrong type, out of its bounds or not among its choices."""
    for item in fields(config):
        check_value(item, getattr(config, item.name))


def check_value(item: Any, value: Any) -> None:
    """Raise ValueError, naming the field, the value and the rule, when `value` cannot be the field's value."""
    kind, optional = field_type(item)
    if value is None and optional:
        return
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{item.name} {shown(value)} is not {in_words(kind)}")
    low, high, choices = (item.metadata.get(key) for key in ("low", "high", "choices"))
    if low is not None and not low <= value <= high:  # the negation also catches NaN
        raise ValueError(f"{item.name} {shown(value)} is not {in_words(kind)} from {low} to {high}")
    if choices and value not in choices:
        raise ValueError(f"{item.name} {shown(value)} is not one of {', '.join(choices)}")


def in_words(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[kind]


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
