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
    more: Callable[[dict[str, Any]], set[str]] | None = None, checks: dict[str, Callable[[Any], object]] | None = None,
) -> tuple[Any, set[str]]:  # fmt: skip
    """Ask for every field that has a question and is not in `values`; the finished config, and what Enter was left to.

    Enter and the end of input mean the default. A bad answer is explained in one line and asked again. At a terminal a
    question comes with what it is about, Enter is answered with what was taken, and Ctrl-D leaves. UserError where the
    given values contradict each other and no question is left to mend it.

    Args:
        complete: what is known so far → the same with the values that other fields then have by default.
        more: what is known so far → names of fields to ask for although they have only words and no question.
        checks: field → raises UserError for a value that cannot be had here, which is asked again at a terminal.
    """
    asked = [item for item in fields(config_class) if item.metadata["question"] and item.name not in values]
    questions = _Questions(config_class, complete, checks or {})
    if asked or more:
        print(title)
    for item in asked:
        values = questions.ask(item, values)
    for item in fields(config_class) if more else ():
        if item.metadata["words"] and item.name not in values and item.name in more(complete(values)):
            values = questions.ask(item, values)
    return build(config_class, complete(values)), questions.assumed


def build(config_class: type, values: dict[str, Any]) -> Any:
    """The config of `values`; UserError where they contradict each other."""
    try:
        return config_class(**values)
    except ValueError as error:
        raise UserError(f"{error}") from None


def is_interactive() -> bool:
    """Whether a person sees the questions and types the answers."""
    return is_terminal(sys.stdin, sys.stdout)


class _Questions:
    """Asks for one field after the other; `assumed` are those that Enter or the end of input left to the default."""

    def __init__(self, config_class: type, complete: Complete, checks: dict[str, Callable[[Any], object]]) -> None:
        self._config_class, self._complete, self._checks = config_class, complete, checks
        self._interactive = is_interactive()
        self.assumed: set[str] = set()

    def ask(self, item: Field, values: dict[str, Any]) -> dict[str, Any]:
        """`values` and the answer."""
        default = self._complete(values).get(item.name, item.default)
        question = item.metadata["question"] or _question(item, default)
        if self._interactive:
            print(f"  {item.metadata['help']}")
        while True:
            answer = self._read_line(question)
            try:
                attempt = {**values, item.name: parse(item, answer) if answer else default}
                # Whatever is not known yet will be: any number of heads is a multiple of these. At the end of input
                # nobody is there to be asked again.
                if answer is not None and "n_embd" in attempt:
                    self._config_class(**self._complete({"n_head": attempt.get("n_kv_heads") or 1, **attempt}))
                if self._interactive and item.name in self._checks:
                    self._checks[item.name](attempt[item.name])
            except (ValueError, UserError) as error:
                print(f"{error}; try again.")
                continue
            if not answer:
                self.assumed.add(item.name)
                if self._interactive:
                    print(f"  Enter: {_spelled(default)}")
            return attempt

    def _read_line(self, prompt: str) -> str | None:
        """The stripped answer, or None at the end of input; KeyboardInterrupt where a person leaves with Ctrl-D."""
        try:
            answer = input(prompt)
        except UnicodeDecodeError:
            return "\ufffd"
        except (EOFError, RuntimeError, ValueError):  # there is no stdin, or it is closed
            if self._interactive:
                raise KeyboardInterrupt from None
            print()
            return None
        if not is_terminal(sys.stdin):
            print()  # a typed answer ends its line by itself, a piped one does not
        return answer.strip()


def _question(item: Field, default: Any) -> str:
    """For a field that has only words, such as `Enter attention (mha, mqa, gqa, mla) (e.g., mha): `."""
    choices = ("yes", "no") if field_type(item)[0] is bool else item.metadata["choices"]
    among = f" ({', '.join(choices)})" if choices else ""
    return f"Enter {item.metadata['words']}{among} (e.g., {_spelled(default)}): "


def _spelled(value: Any) -> str:
    """A value as a person would type it."""
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value}"
