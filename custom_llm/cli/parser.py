"""Command lines: argparse with one-line errors, and checked numbers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.common.steps import command, step


class ArgumentParser(argparse.ArgumentParser):
    """argparse that raises `UserError` instead of printing its usage, and takes no abbreviated flags."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> None:
        raise UserError(f"{message} (see {self.prog} --help)")


class StepParser(ArgumentParser):
    """The command line of one step, with --config: a file whose options are like defaults to the flags.

    Attributes:
        script: the step, which is the name of its section in the file.
        lists: attributes of flags that take several values with commas, which may be a list in the file.
        instead: attributes of which a given one takes the place of all that the file says of them.
        checks: attribute → what makes its value of the typed text, where the script does that after parsing; it raises
            ValueError with a message that begins with the name.
    """

    def __init__(self, description: str, script: str, lists: Sequence[str] = (), instead: Sequence[str] = ()) -> None:
        super().__init__(re.sub(r"python (\w+)\.py", lambda shown: command(shown[1]), description))
        self.prog = step(script)
        self.script = script
        self.lists = lists
        self.instead = instead
        self.checks: dict[str, Callable[[str], Any]] = {}
        self.add_argument(
            "--config", metavar="FILE", help="options from a YAML file (docs/configuration.md); flags win over it"
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """The flags, and what the file of --config says beside them.

        Raises:
            UserError: a flag, or something in the file, is wrong.
        """
        found = super().parse_args(args, namespace)
        if found.config is None:
            return found
        from custom_llm.cli.run_file import read_options

        options = read_options(found.config, self)
        if any(getattr(found, name) is not None for name in self.instead):
            options = {name: value for name, value in options.items() if name not in self.instead}
        self.set_defaults(**options)
        return super().parse_args(args, namespace)


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
    """A parser for a finite number with low ≤ number ≤ high; it raises ValueError with the rule in words.

    >>> number(int, 1)("12")
    12
    """
    words = "a whole number" if kind is int else "a number"
    if low is not None and high is not None:
        words += f" from {low} to {high}"
    elif low is not None:
        words += f" of at least {low}"

    def parse(text: str) -> int | float:
        try:
            value = kind(text.strip())
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}") from None
        in_range = (low is None or value >= low) and (high is None or value <= high)
        if not in_range or value in (float("inf"), float("-inf")) or value != value:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return parse
