"""What is kept of a training beside its model: `.loss.csv`, `.loss.png`, `.report.html`, and a tracker's run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import LOSSES, beside, write_bytes
from custom_llm.common.notes import note
from custom_llm.training.clock import Clock
from custom_llm.training.tracking.history import About, History, Point, to_csv
from custom_llm.training.tracking.plot import draw_curves
from custom_llm.training.tracking.trackers import TRACKERS
from custom_llm.training.tracking.web_report import Live, make_page

SAMPLE_SHARE, CSV_SHARE, PAGE_SHARE = 0.05, 0.01, 0.01  # of the time, at most
PAGE_PAUSE = 2.0  # seconds between two pages, at least
PICTURE_AFTER = 30  # seconds until the first picture, since drawing that takes about one

Result = TypeVar("Result")


class Paced:
    """Calls a function so rarely that it takes no more than a share of the time.

    Not before `after` seconds, and not twice in `pause` seconds.
    """

    def __init__(self, function: Callable[[], Result], share: float, after: float = 0.0, pause: float = 0.0) -> None:
        self._function, self._share, self._pause = function, share, pause
        self._next = time.monotonic() + after

    def __call__(self) -> Result | None:
        """What the function returns, or None if it is not its time."""
        began = time.monotonic()
        if began < self._next:
            return None
        try:
            return self._function()
        finally:
            ended = time.monotonic()
            self._next = ended + max(self._pause, (ended - began) / self._share)


class Record:
    """Keeps what is to be looked at. What cannot be written is a note, once; the training goes on."""

    def __init__(self, model_path: str, tracker: str) -> None:
        """Raises UserError if the tracker is not installed, or its folder cannot be."""
        self._csv, self.page = beside(model_path, LOSSES), beside(model_path, ".report.html")
        self._png = beside(model_path, ".loss.png")
        self.untrained: str | None = None  # what the model wrote before it was trained
        self._kind, self._run = tracker, None
        self._tracker = TRACKERS[tracker](model_path) if tracker in TRACKERS else None
        self._history: History | None = None
        self._failed: set[str] = set()

    def check(self, files: Iterable[Path]) -> None:
        """Raise UserError when one of the files of the text would be written over."""
        written = {os.path.realpath(path) for path in (self._csv, self._png, self.page)}
        for path in files:
            if os.path.realpath(path) in written:
                raise UserError(f"--dataset_path {path}: training writes its figures there; give the text another name")

    def start(self, about: About, history: History, clock: Clock) -> None:
        """Begin, or go on behind the points that `history` has; UserError where the tracker does not begin."""
        if self._tracker is not None:
            step = history.points[-1].step if history.points else 0
            settings = {name: value for table in about.tables.values() for name, value in table.items()}
            self._run = self._tracker.start(self._run, step, settings)
        self._about, self._history, self._clock = about, history, clock
        self._write_csv_now_and_then = Paced(self._write_csv, CSV_SHARE)
        self._picture: str | None = None
        self._draw_now_and_then = Paced(self._draw, PAGE_SHARE, PICTURE_AFTER)
        self._write_page_now_and_then = Paced(self._write_live_page, PAGE_SHARE, pause=PAGE_PAUSE)
        self._attempt("csv", self._write_csv)
        self._attempt("page", self._write_page_now_and_then)

    def add(self, point: Point) -> None:
        """Take note of a new point of the history."""
        self._track(lambda: self._tracker.log(point))
        self._attempt("csv", self._write_csv_now_and_then)
        self._attempt("page", self._write_page_now_and_then)

    def save(self) -> None:
        """Let a crash lose nothing, and a person see how it is going."""
        self._attempt("csv", self._write_csv)
        self._track(lambda: self._tracker.flush())
        self._attempt("page", self._write_page_now_and_then)

    def finish(self, status: str, text: str | None = None, about: About | None = None) -> Path | None:
        """Write all that there is, if it has begun, and return the page, if that was written (see `make_page`).

        `about` is what there is to say now, if more than at the start.
        """
        self._about = about or getattr(self, "_about", None)
        if self._history is None:
            return None
        self._attempt("csv", self._write_csv)
        page = self._attempt("page", lambda: self._write_last_page(status, text))
        self._track(lambda: self._tracker.close())
        return page

    def state_dict(self) -> dict[str, Any]:
        """The run of the tracker, and what the model wrote before."""
        return {"tracker": self._kind, "run": self._run, "untrained": self.untrained}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on with the same run, if it is the same tracker. To be called before `start`."""
        state = state or {}
        self._run = state.get("run") if state.get("tracker") == self._kind else None
        untrained = state.get("untrained")
        self.untrained = untrained if isinstance(untrained, str) else None

    def _write_csv(self) -> None:
        write_bytes(self._csv, to_csv(self._history.points))

    def _write_live_page(self) -> Path:
        """The page of a training that is under way."""
        if self._history.points:
            self._picture = self._attempt("picture", self._draw_now_and_then) or self._picture
        progress = self._clock.progress
        left = self._clock.seconds * (1 - progress) / progress if progress else None
        return self._write_page("under way", live=Live(progress, left, time.strftime("%H:%M:%S")))

    def _write_last_page(self, status: str, text: str | None) -> Path:
        if self._history.points:
            self._picture = self._attempt("picture", self._draw)
        return self._write_page(status, text)

    def _write_page(self, status: str, text: str | None = None, live: Live | None = None) -> Path:
        page = make_page(self._about, self._history.points, status, self._picture, self.untrained, text, live)
        write_bytes(self.page, page.encode(errors="replace"))
        return self.page

    def _draw(self) -> str:
        """Write the picture, and give one for the page."""
        try:
            png, svg = draw_curves(self._history.points)
        except ImportError:
            raise UserError("there is no picture of the loss; pip install matplotlib") from None
        self._attempt("png", lambda: write_bytes(self._png, png))
        return svg

    def _track(self, call: Callable[[], object]) -> None:
        """Tell the tracker, unless it has failed before."""
        if self._tracker is not None and "tracker" not in self._failed:
            self._attempt("tracker", call)

    def _attempt(self, what: str, call: Callable[[], Result]) -> Result | None:
        """`call()`, or a note if that fails."""
        try:
            return call()
        # Whatever is wrong with a picture or with somebody else's package, hours of training must not end by it.
        except Exception as error:
            if what not in self._failed:
                reason = describe_os_error(error) if isinstance(error, OSError) else f"{error}"
                reason = " ".join(reason.split()) or type(error).__name__
                kind = "" if isinstance(error, (UserError, OSError)) else f"{what}: "
                note(f"{kind}{reason}")
            self._failed.add(what)
            return None
