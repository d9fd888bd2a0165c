"""How far long work is: a bar with the time left at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from custom_llm.common.notes import is_terminal

SECONDS_BETWEEN_LINES = 30


class Progress:
    """Shows a fraction from 0 to 1 on stderr, with a few words and the time left."""

    def __init__(self, title: str = "", delay: float = 0.0, has_end: bool = True) -> None:
        """Nothing is shown for `delay` seconds; only the words and the time where it is not known how much there is."""
        self._title = f"{title} " if title else ""
        self._fraction = 0.0  # that the bar shows
        self._start = self._last_shown = time.monotonic()
        self._bar = None
        if is_terminal(sys.stderr):
            layout = "{percentage:3.0f}% |{bar}| {elapsed}<{remaining}" if has_end else "{elapsed}"
            layout = "{desc}" + layout + "{postfix}"
            self._bar = tqdm(
                desc=self._title, total=1.0, bar_format=layout, file=sys.stderr, leave=False, dynamic_ncols=True,
                delay=delay, miniters=0,
            )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._start

    def update(self, fraction: float, words: str | Callable[[], str]) -> None:
        """Say that `fraction` of the whole is done (0: not known); what makes `words` is called only to show them."""
        now = time.monotonic()
        if now - self._last_shown < (SECONDS_BETWEEN_LINES if self._bar is None else self._bar.mininterval):
            return
        self._last_shown = now
        words = words if isinstance(words, str) else words()
        if self._bar is not None:
            self._bar.set_postfix_str(words, refresh=False)
            self._bar.update(fraction - self._fraction)
            self._fraction = fraction
        else:
            if fraction:
                words = f"{fraction:4.0%} {words}, {self.seconds * (1 - fraction) / fraction:,.0f} s left"
            print(f"{self._title}{words}", file=sys.stderr, flush=True)

    def print(self, line: str, file: TextIO | None = None) -> None:
        """Write a line to stdout, or to stderr, without tearing the bar."""
        file = file or sys.stdout
        if self._bar is None:
            print(line, file=file, flush=True)
        else:
            self._bar.write(line, file=file)
            file.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
