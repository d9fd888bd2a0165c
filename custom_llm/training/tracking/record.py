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
from custom_llm.training.tracking.history import About, History, Point, to_csv
from custom_llm.training.tracking.plot import draw_curves
from custom_llm.training.tracking.trackers import TRACKERS
from custom_llm.training.tracking.web_report import make_page

SAMPLE_SHARE, CSV_SHARE, PAGE_SHARE = 0.05, 0.01, 0.01  # of the time, at most
PAGE_AFTER = 60  # seconds until the first page, since drawing the first picture takes about one

Result = TypeVar("Result")


class Paced:
    """Calls a function so rarely that it takes no more than a share of the time; not before `after` seconds."""

    def __init__(self, function: Callable[[], Result], share: float, after: float = 0.0) -> None:
        self._function, self._share = function, share
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
            self._next = ended + (ended - began) / self._share


class Record:
    """Keeps what is to be looked at. What cannot be written is a note, once; the training goes on."""

    def __init__(self, model_path: str, tracker: str) -> None:
        """Raises UserError if the tracker is not installed, or its folder cannot be."""
        self._csv, self._page = beside(model_path, LOSSES), beside(model_path, ".report.html")
        self._png = beside(model_path, ".loss.png")
        self._kind, self._run = tracker, None
        self._tracker = TRACKERS[tracker](model_path) if tracker in TRACKERS else None
        self._history: History | None = None
        self._failed: set[str] = set()

    def check(self, files: Iterable[Path]) -> None:
        """Raise UserError when one of the files of the text would be written over."""
        written = {os.path.realpath(path) for path in (self._csv, self._png, self._page)}
        for path in files:
            if os.path.realpath(path) in written:
                raise UserError(f"--dataset_path {path}: training writes its figures there; give the text another name")

    def start(self, about: About, history: History) -> None:
        """Begin, or go on behind the points that `history` has; UserError where the tracker does not begin."""
        if self._tracker is not None:
            step = history.points[-1].step if history.points else 0
            settings = {name: value for table in about.tables.values() for name, value in table.items()}
            self._run = self._tracker.start(self._run, step, settings)
        self._about, self._history = about, history
        self._write_csv_now_and_then = Paced(self._write_csv, CSV_SHARE)
        self._write_page_now_and_then = Paced(lambda: self._write_page("under way", None), PAGE_SHARE, PAGE_AFTER)
        self._attempt("csv", self._write_csv)

    def add(self, point: Point) -> None:
        """Take note of a new point of the history."""
        self._track(lambda: self._tracker.log(point))
        self._attempt("csv", self._write_csv_now_and_then)

    def save(self) -> None:
        """Let a crash lose nothing, and a person see how it is going."""
        self._attempt("csv", self._write_csv)
        self._track(lambda: self._tracker.flush())
        self._attempt("page", self._write_page_now_and_then)

    def finish(self, status: str, text: str | None = None) -> Path | None:
        """Write all that there is, if it has begun, and return the page, if that was written (see `make_page`)."""
        if self._history is None:
            return None
        self._attempt("csv", self._write_csv)
        page = self._attempt("page", lambda: self._write_page(status, text))
        self._track(lambda: self._tracker.close())
        return page

    def state_dict(self) -> dict[str, Any]:
        """The run of the tracker."""
        return {"tracker": self._kind, "run": self._run}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on with the same run, if it is the same tracker. To be called before `start`."""
        self._run = state["run"] if state is not None and state.get("tracker") == self._kind else None

    def _write_csv(self) -> None:
        write_bytes(self._csv, to_csv(self._history.points))

    def _write_page(self, status: str, text: str | None) -> Path | None:
        points = self._history.points
        if not points:
            return None
        picture = self._attempt("picture", lambda: self._draw(points))
        page = make_page(self._about, points, status, picture, text)
        write_bytes(self._page, page.encode(errors="replace"))
        return self._page

    def _draw(self, points: list[Point]) -> str:
        """Write the picture, and give one for the page."""
        try:
            png, svg = draw_curves(points)
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
