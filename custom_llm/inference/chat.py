"""Writing together with a model: what a person types is continued, and what was written stays in front of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import check_target, write_bytes
from custom_llm.common.text import counted, printable
from custom_llm.inference.card import card_lines
from custom_llm.inference.console import Console
from custom_llm.inference.report import summary, timings
from custom_llm.inference.scores import logprob_table
from custom_llm.inference.settings import DEFAULT, NAMES, Settings, value_of
from custom_llm.inference.text import left_out
from custom_llm.inference.write import MORE, Text, write

if TYPE_CHECKING:
    from custom_llm.inference.engine import Engine

GREETING = "Type the beginning of a text; the model continues it. /help tells the rest, /quit leaves."
HELP = """\
What you type is continued, and stays in front of what you type next. Enter alone: the model writes on.
Ctrl-C stops the text that is being written. Alt-Enter, or a backslash before Enter, begins a new line.

  /set temp 0.7   change a setting ("default" puts it back); /set alone shows all of them
  /reset          begin with an empty page
  /save FILE      write the text so far, yours and the model's, to a new file
  /stats          the figures of the latest text
  /help           this; "help" does it, too
  /quit           leave, as "quit", "exit" and Ctrl-D do

A text that looks like one of these is a text with a space before it."""
WORDS = {"help": "/help", "quit": "/quit", "exit": "/quit", "/exit": "/quit"}  # what people try
OPENING = "([{<>/"  # what a word follows without a space; ">" also ends a control token
COMMAND = re.compile(r"/([A-Za-z]*)(?:\s+(.*))?", re.DOTALL)  # so /usr/bin, // and /* are texts


class Chat:
    """A conversation in which both write on one text; `text` is all of it so far."""

    def __init__(self, engine: Engine, settings: Settings, load_seconds: float = 0.0, show_stats: bool = False) -> None:
        """show_stats: a line of figures after each text."""
        self.text = ""
        self._engine, self._settings, self._at_first = engine, settings, settings
        self._load_seconds, self._show_stats = load_seconds, show_stats
        self._latest: Text | None = None
        self._cut_after: int | None = None  # what was told of: texts are cut after so many tokens
        self._saved: set[Path] = set()
        self._over = False
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: _say(HELP),
            "set": self._set,
            "reset": self._reset,
            "save": self._save,
            "stats": self._stats,
            "quit": lambda _: setattr(self, "_over", True),
        }

    def run(self, console: Console) -> None:
        """Show the model's card, then continue what is typed until the person leaves."""
        columns = shutil.get_terminal_size().columns
        _say(*card_lines(self._engine.card(), columns), "", GREETING)
        while not self._over:
            line = console.read()
            if line is None:
                return
            try:
                self.answer(line)
            except UserError as error:
                _say(f"error: {error}")
            except KeyboardInterrupt:  # between the pieces of a text, or in a command
                print(flush=True)

    def answer(self, line: str) -> None:
        """Do what a line says, or continue it. Raises UserError for a wrong command or setting."""
        command = COMMAND.fullmatch(WORDS.get(line.rstrip().lower(), line.rstrip()))
        if command is None:
            self._continue(line)
            return
        name, rest = command[1], (command[2] or "").strip()
        if name not in self._commands:
            near = get_close_matches(name.lower(), self._commands, n=1)
            hint = f"did you mean /{near[0]}?" if near else "/help lists them"
            raise UserError(f"there is no command /{name}; {hint}")
        self._commands[name](rest)

    def _continue(self, typed: str) -> None:
        if message := left_out(self._engine.read(typed).unknown):
            _say(f"warning: {message}")
        self.text += _space_between(self.text, typed) + typed
        text = self._latest = write(self._engine, self.text, self._settings, self._show)
        if not text.text and text.finish_reason == "stop":
            _say("(the text ends here; type on, or begin another with /reset)")
        elif not text.text.endswith("\n"):
            print(flush=True)
        if text.finish_reason == "length" and self._settings.max_tokens:
            _say(self._cut())
        if text.scores:
            _say(*map(printable, logprob_table(text.scores)))
        if self._show_stats:
            _say(summary(text.statistics, self._load_seconds))

    def _cut(self) -> str:
        """That the text was cut, and what to do; that only once for the same setting."""
        n, known = self._settings.max_tokens, self._cut_after
        self._cut_after = n
        more = "" if n == known else f"; Enter alone goes on, and /set max_tokens {MORE * n} makes texts longer"
        return f"(cut after {counted(n, 'token')}{more})"

    def _show(self, piece: str) -> None:
        self.text += piece
        print(printable(piece), end="", flush=True)

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if not name:
            for each in NAMES:
                _say(f"  {each:<18}{_shown(self._settings[each])}")
            return
        if name in NAMES:
            if not value:
                raise UserError(f"/set {name} VALUE, or /set {name} {DEFAULT}; it is {_shown(self._settings[name])}")
            value = self._at_first[name] if value == DEFAULT else value_of(name, value.strip())
        changed = self._settings.changed({name: value})
        self._engine.check(changed.sampling, changed.ignore_eos)
        self._settings = changed
        _say(f"  {name:<18}{_shown(changed[name])}")

    def _reset(self, _: str) -> None:
        self.text = ""
        self._latest = None
        _say("an empty page")

    def _save(self, rest: str) -> None:
        if not rest:
            raise UserError("/save FILE: give the name of a file to write")
        if not self.text:
            raise UserError("/save: there is no text yet")
        try:
            path = check_target(Path(rest).expanduser())
            if path.exists() and path.resolve() not in self._saved:
                raise UserError(f"{path} is there; move it away or give another name")
            write_bytes(path, self.text.encode())
        except OSError as error:
            raise UserError(f"/save: {describe_os_error(error)}") from None
        except RuntimeError as error:  # of expanduser: there is no such home
            raise UserError(f"/save {rest}: {error}") from None
        self._saved.add(path.resolve())
        _say(f"{counted(len(self.text), 'character')} in {path}")

    def _stats(self, _: str) -> None:
        if self._latest is None:
            raise UserError("/stats: there is no text yet")
        _say(*timings(self._latest.statistics, self._load_seconds), f"            seed = {self._latest.seed}")


def _space_between(before: str, typed: str) -> str:
    """The space that people leave out between what stands and what they type, in a language that has spaces."""
    is_word = typed[:1].isalnum() and before[-1:] and not (before[-1].isspace() or before[-1] in OPENING)
    return " " if is_word and " " in before else ""


def _shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(repr, value))
    return repr(value) if isinstance(value, str) else str(value)


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)
