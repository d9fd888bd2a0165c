"""Lines from a person at a terminal: edited, several at once, and remembered from one start to the next."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from custom_llm.common.notes import note
from custom_llm.common.text import as_read

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History

PROMPT, CONTINUED = "> ", "  "
LEAVING = "(Ctrl-C once more, Ctrl-D or /quit leaves)"
NO_CURSOR = ("dumb", "unknown")  # terminals that cannot move it, as Emacs's shell


class Console:
    """What a person types, one text after the other."""

    def __init__(self, history_file: Path | None) -> None:
        """history_file: where texts are remembered; None forgets them."""
        self._session: PromptSession | None = None
        if os.environ.get("TERM", "").lower() not in NO_CURSOR:
            try:
                self._session = _session(history_file)
            except ImportError:
                note("for a history and several lines at once: pip install prompt_toolkit")
        if self._session is None:
            sys.stdin.reconfigure(errors="replace")
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 (makes input() know the arrow keys)

    def read(self) -> str | None:
        """The next text; None when the person leaves: with Ctrl-D, or Ctrl-C twice where nothing is typed."""
        leaving = False
        while True:
            try:
                return as_read(self._session.prompt() if self._session else _plain_lines())
            except EOFError:
                return None
            except KeyboardInterrupt:
                typed = self._session is not None and self._session.default_buffer.text
                if leaving and not typed:
                    return None
                leaving = not typed
                if leaving:
                    print(LEAVING, flush=True)


def _session(history_file: Path | None) -> PromptSession:
    """A line editor in which Enter ends a text, and Alt-Enter or a backslash before Enter begins a new line."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()
    is_typing = has_focus(DEFAULT_BUFFER)  # and not searching the history, where Enter takes what was found

    @keys.add("enter", filter=is_typing)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.text.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=is_typing)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=CONTINUED,
        key_bindings=keys,
        history=_history(history_file),
        enable_suspend=True,
    )


def _history(path: Path | None) -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Kept(FileHistory):
        """A file that may fill the disk without ending the session."""

        def store_string(self, string: str) -> None:
            with contextlib.suppress(OSError):
                super().store_string(string)

    if path is None or (path.exists() and not path.is_file()):  # opening a pipe would wait for ever
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return Kept(path)
    except OSError as error:
        note(f"what you type is not remembered: {path}: {error.strerror}")
        return InMemoryHistory()


def _plain_lines() -> str:
    """Lines by input(), as many as end in a backslash and one more."""
    lines = [input(PROMPT)]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input(CONTINUED))
    return "\n".join(lines)
