"""How far a training is: a bar with the time left at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30


class Progress:
    """Shows a fraction from 0 to 1 on stderr, with the latest training loss and the time left."""

    def __init__(self) -> None:
        self._fraction = 0.0
        self._tokens = 0
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            layout = "{percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}"
            self._bar = tqdm(total=1.0, bar_format=layout, file=sys.stderr, leave=False, dynamic_ncols=True)

    def update(self, fraction: float, loss: float, n_tokens: int) -> None:
        """Say that `fraction` of the whole is done, after a step on `n_tokens` of this loss (nats per token)."""
        self._tokens += n_tokens
        words = f"loss {loss:.3f}, {self._tokens / (time.monotonic() - self._start):,.0f} tokens/s"
        if self._bar is not None:
            self._bar.set_postfix_str(words, refresh=False)
            self._bar.update(fraction - self._fraction)
        self._fraction = fraction
        now = time.monotonic()
        if self._bar is None and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._start) * (1 - fraction) / fraction if fraction else 0
            print(f"{fraction:4.0%} {words}, {left:,.0f} s left", file=sys.stderr, flush=True)

    def print(self, line: str) -> None:
        """Write a line to stdout without tearing the bar."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
