"""Command lines: argparse with one-line errors, flags for the fields of a config, and options in a file (--config)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from custom_llm.cli.fields import YES_OR_NO, field_type, parse, with_point
from custom_llm.common.errors import UserError
from custom_llm.common.steps import STEPS, command, docs, program, step
from custom_llm.common.text import shown

if TYPE_CHECKING:
    from custom_llm.cli.yaml_file import Node

METAVARS = {int: "N", float: "X", str: "TEXT"}
UNASKED = ("help", "config", argparse.SUPPRESS)  # flags that are no options of a run


class ArgumentParser(argparse.ArgumentParser):
    """argparse that raises `UserError` instead of printing its usage, and takes no abbreviated flags."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> None:
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = message.removeprefix("unrecognized arguments: ").split()[:1]
        if unknown and unknown[0].startswith("-") and (nearest := _nearest(unknown[0], flags, " ").strip()):
            message += f"; {nearest}"
        raise UserError(f"{message} (see {self.prog} --help)")


class StepParser(ArgumentParser):
    """The command line of one step, with --config: a file whose options are like defaults to the flags.

        train_llm:                  # a section for each step; or, without sections, the options of one step
          learning_rate: 1e-4
          dataset: tinystories

    A value is read as the text that a person would type after the flag, and checked by the code that checks the flag.

    Attributes:
        script: the step, which is the name of its section in the file.
        lists: attributes of flags that take several values with commas, which may be a list in the file.
        instead: attributes of which a given one takes the place of all that the file says of them.
        checks: attribute → what makes its value of the typed text, where that is done after parsing, by `given`.
    """

    def __init__(self, description: str, script: str, lists: Sequence[str] = (), instead: Sequence[str] = ()) -> None:
        if program():  # there, the docs are not
            description = re.sub(r" docs/\w+\.md [^.]+\.", "", description)
        super().__init__(re.sub(r"python (\w+)\.py", lambda shown: command(shown[1]), description))
        self.prog = step(script)
        self.script = script
        self.lists = lists
        self.instead = instead
        self.checks: dict[str, Callable[[str], Any]] = {}
        self.add_argument(
            "--config", metavar="FILE", help=f"options from a YAML file{docs('configuration')}; flags win over it"
        )

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """The flags, and what the file of --config says beside them; UserError where one of them is wrong.

        `parse_args` calls it.
        """
        found, rest = super().parse_known_args(args, namespace)
        if found.config is None:
            return found, rest
        options = read_options(found.config, self)
        if any(getattr(found, name) is not None for name in self.instead):
            options = {name: value for name, value in options.items() if name not in self.instead}
        self.set_defaults(**options)
        return super().parse_known_args(args, namespace)

    def options(self) -> dict[str, argparse.Action]:
        """Attribute → its action, in the order of --help; where there are two, that of the flag of the same name."""
        found: dict[str, argparse.Action] = {}
        for action in self._actions:
            if action.dest not in UNASKED and (action.dest not in found or f"--{action.dest}" in action.option_strings):
                found[action.dest] = action
        return found


def add_flags(parser: StepParser, config_class: type, title: str, but: Sequence[str] = ()) -> None:
    """Give `parser` a group of flags, one per field `but` for some, absent from the result unless it was given."""
    group = parser.add_argument_group(title)
    for item in (item for item in fields(config_class) if item.name not in but):
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


def given(config_class: type, args: argparse.Namespace) -> dict[str, Any]:
    """The values of the flags and options that were given; UserError, naming the flag, where one cannot be."""
    found = {}
    for item in fields(config_class):
        value = getattr(args, item.name)
        if value is None:
            continue
        try:
            found[item.name] = parse(item, value) if isinstance(value, str) else value
        except ValueError as error:
            raise UserError(f"--{error}") from None
    return found


class _YesOrNo(argparse.Action):
    """--flag and --no_flag."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__([*option_strings, f"--no_{dest}"], dest, nargs=0, help=help)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, not option_string.startswith("--no_"))


class Once(argparse.Action):
    """--flag VALUE, refused where it is given again: both cannot be meant."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        if before is not self.default:
            raise UserError(f"{option_string} is given twice, with {before} and {values}; give one of them")
        setattr(namespace, self.dest, values)


class Repeatable(argparse.Action):
    """--flag VALUE --flag VALUE as a list. Unlike with argparse's own `append`, it replaces the default.

    The default is a tuple; that tells a file of options to take a list.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(() if before is self.default else before), values])


def number(
    kind: type[int] | type[float], low: float | None = None, high: float | None = None
) -> Callable[[str], int | float]:
    """A parser for a finite number with low ≤ number ≤ high; it raises ArgumentTypeError with the rule in words.

    >>> number(int, 1)("12")
    12
    """
    words = "a whole number" if kind is int else "a number"
    if low is not None and high is not None:
        words += f" from {low} to {high}"
    elif low is not None:
        words += f" of at least {low}"

    def parse_number(text: str) -> int | float:
        try:
            value = kind(with_point(text) if kind is float else text.strip())
        except ValueError:
            value = float("nan")
        in_range = (low is None or value >= low) and (high is None or value <= high)
        if not in_range or value in (float("inf"), float("-inf")) or value != value:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not {words}")
        return value

    return parse_number


def read_options(path: str, parser: StepParser, is_part: bool = False) -> dict[str, Any]:
    """The options that a file gives to a step, as its flags would: attribute → value.

    UserError where the file cannot be read, is not such a file, or a key or value of it is wrong, by name.

    Args:
        is_part: `parser` has only some of the step's options, and the others are passed over.
    """
    actions = parser.options()
    names = {dest: dest for dest in actions}  # key → attribute
    for action in parser._actions:
        flags = [flag.removeprefix("--") for flag in action.option_strings if action.dest in names]
        names.update({flag: action.dest for flag in flags if flag != f"no_{action.dest}"})
    values: dict[str, Any] = {}
    for key, node in _section(path, parser.script).items():
        where = f"{path}, line {node.line}"
        if key not in names:
            if is_part:
                continue
            raise UserError(f"{where}: {_no_option(key, names, parser.script)}")
        if node.value is None:
            continue
        dest = names[key]
        if dest in values:
            raise UserError(f"{where}: {key} is an option of the lines above, too; give {dest} once")
        try:
            values[dest] = _value(key, node, actions[dest], parser)
        except (ValueError, UserError) as error:
            raise UserError(f"{path}: {str(error).removeprefix('--')}") from None
        except argparse.ArgumentTypeError as error:  # its message has no name in it
            raise UserError(f"{path}: {key} {error}") from None
    return values


def _section(path: str, script: str) -> dict[str, Node]:
    """What a file says to a step: the section of it, or all where there are no sections."""
    from custom_llm.cli.yaml_file import read_yaml  # and yaml with it

    content = read_yaml(path)
    if not any(key in STEPS or isinstance(node.value, dict) for key, node in content.items()):
        return content
    for key, node in content.items():
        if key not in STEPS:
            wrong = "there is no section" if isinstance(node.value, dict) else "outside of the sections stands"
            raise UserError(f"{path}, line {node.line}: {wrong} {shown(key)[1:-1]}; {_nearest(key, STEPS)}")
        if node.value is not None and not isinstance(node.value, dict):
            raise UserError(f"{path}, line {node.line}: {key} is a section; give its options, one a line, indented")
    return (script in content and content[script].value) or {}


def _value(key: str, node: Node, action: argparse.Action, parser: StepParser) -> Any:
    """What the option is if this is typed after its flag, by the code that reads what is typed.

    Where it is no such value, the message of a ValueError or UserError begins with the key or its flag, that of an
    ArgumentTypeError with the value.
    """
    check = parser.checks.get(action.dest) or action.type or str
    is_repeatable = isinstance(action.default, tuple)
    if isinstance(node.value, list):
        if not is_repeatable and action.dest not in parser.lists:
            raise ValueError(f"{key} is a list; give one value, in quotes if it is one")
        texts = [_text(f"{key} has an item that", item) for item in node.value]
        if is_repeatable:
            return [check(text) for text in texts]
        for text in texts:
            if "," in text:
                raise ValueError(f"{key} has an item with a comma, {shown(text)}; commas divide items")
        return check(",".join(texts))
    text = _text(key, node)
    if action.nargs == 0:  # flags without a value
        if text.lower() not in YES_OR_NO:
            raise ValueError(f"{key} {shown(text)} is not yes or no")
        return YES_OR_NO[text.lower()]
    return [check(text)] if is_repeatable else check(text)


def _text(what: str, node: Node) -> str:
    if not isinstance(node.value, str):
        found = {dict: "a mapping", list: "a list"}.get(type(node.value), "null")
        raise ValueError(f"{what} is {found} (line {node.line}); give one value")
    return node.value


def _no_option(key: str, names: Iterable[str], script: str) -> str:
    if key.startswith("no_") and key.removeprefix("no_") in names:
        return f"there is no option {key}; write {key.removeprefix('no_')}: no"
    return f"{script} has no option {shown(key)[1:-1]}; {_nearest(key, names, 'see ' + command(script, '--help'))}"


def _nearest(key: str, names: Iterable[str], otherwise: str = "") -> str:
    from difflib import get_close_matches

    names = list(names)
    close = get_close_matches(key[:99], names, n=1)  # its time grows with the square of the length
    return f"did you mean {close[0]}?" if close else otherwise or f"there are {', '.join(names)}"
