"""Fields of a config that know their help, their question, their bounds and their choices, and what fits them."""

from __future__ import annotations

import re
from dataclasses import field, fields
from typing import Any

from custom_llm.common.text import shown

YES_OR_NO = dict.fromkeys(("yes", "y", "true", "on"), True) | dict.fromkeys(("no", "n", "false", "off"), False)


def option(
    default: Any, help: str, *, question: str | None = None, words: str | None = None, low: float | None = None,
    high: float | None = None, choices: tuple[str, ...] | None = None,
) -> Any:  # fmt: skip
    """A dataclass field with what a command line and a prompt need to know about it.

    Args:
        help: one line for `--help`.
        question: the exact prompt, or None when the option is not always asked.
        words: what the option is called when all the options are asked, or None when it is a flag only.
        low, high: inclusive bounds of a number.
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


def parse(item: Any, text: str) -> Any:
    """`text` as the field's value; ValueError, with the field's name and the rule, where it is none."""
    kind, _ = field_type(item)
    try:
        value = YES_OR_NO[text.lower()] if kind is bool else kind(with_point(text) if kind is float else text)
    except (ValueError, KeyError):
        words = "yes or no" if kind is bool else in_words(kind)
        raise ValueError(f"{item.name} {shown(text)} is not {words}") from None
    check_value(item, value)
    return value


def with_point(text: str) -> str:
    """A number that was typed with a decimal comma, with a point. What may be thousands (1,000) stays as it is.

    >>> with_point("0,001"), with_point("1,5"), with_point("1,000")
    ('0.001', '1.5', '1,000')
    """
    is_decimal = re.fullmatch(r"-?\d*,\d+(e-?\d+)?", text.strip())
    is_thousands = re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", text.strip())
    return text.replace(",", ".") if is_decimal and not is_thousands else text
