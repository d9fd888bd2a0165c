"""How much of a text is copied: runs of 50 characters that stand verbatim in the training text.

The runs of the texts in question are few, those of the training text are many. So a hash of each of the former is kept
(Karp & Rabin 1987), and the latter is read once, piece by piece; where the hash of a run of it is among them, the
characters themselves are compared. Time grows with the length of the training text, memory does not.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RUN = 50  # characters
PART = 1 << 20  # characters of the training text that are looked at together
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers have inverses modulo 2**64
FILTER_BITS = 20
USUAL = 0.05  # how much larger a share than people's is no sign of memorising
MOSTLY = 0.5


@dataclass(frozen=True)
class Copies:
    """What of a text is copied."""

    n_runs: int  # of RUN characters, one beginning at each character that has so many behind it
    n_copied: int  # how many of them stand in the training text
    longest: str  # string of the text that stands there, of at least RUN characters; empty if there is none


def share_copied(copies: Sequence[Copies]) -> float | None:
    """Of the runs of all these texts; None if no text is long enough to have one."""
    n_runs = sum(item.n_runs for item in copies)
    return sum(item.n_copied for item in copies) / n_runs if n_runs else None


def longest_copy(copies: Sequence[Copies]) -> str:
    """Of all these texts."""
    return max((item.longest for item in copies), key=len, default="")


def judge_copies(model: float | None, people: float | None) -> str:
    """A sentence on the share that a model copies, beside the share of what people wrote; "" where one has no runs."""
    if model is None or people is None:
        return ""
    beside = f"{model:.0%} of what it writes stands word for word in the training text, {people:.0%} of what people do"
    if model <= people + USUAL:
        return f"It writes text of its own: {beside}."
    part = "most of its text" if model > MOSTLY else "a part of its text"
    return f"It has memorised {part}: {beside}. More text, or a smaller model, copies less."


def find_copies(texts: Sequence[str], training: Iterable[str]) -> list[Copies]:
    """What of each text stands in the text that the pieces of `training` are of."""
    owners: dict[str, set[int]] = {}  # run → the texts that it stands in
    for place, text in enumerate(texts):
        for run in _runs(text):
            owners.setdefault(run, set()).add(place)
    found: set[str] = set()
    longest = [""] * len(texts)
    wanted = np.unique(np.array([_hashes(run)[0] for run in owners], np.uint64))
    if len(wanted):
        seen: set[str] = set()  # texts of few words have the same passages again and again
        for part in _overlapping(training, max(map(len, texts)) - 1):
            for passage in _passages(part, wanted, owners):
                if passage not in seen:
                    seen.add(passage)
                    runs = _runs(passage)
                    found.update(runs)
                    for place in set().union(*(owners[run] for run in runs)):
                        longest[place] = _longer(texts[place], passage, longest[place])
    counts = [(len(runs), sum(run in found for run in runs)) for runs in map(_runs, texts)]
    return [Copies(n, n_copied, copy) for (n, n_copied), copy in zip(counts, longest, strict=True)]


def _runs(text: str) -> list[str]:
    return [text[start : start + RUN] for start in range(len(text) - RUN + 1)]


def _overlapping(pieces: Iterable[str], overlap: int) -> Iterator[str]:
    """The text of `pieces` in parts that each begin with the end of the one before: no copy is longer than that."""
    held: list[str] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += len(piece)
        if n_held >= PART + overlap:
            text = "".join(held)
            yield text
            held = [text[len(text) - overlap :]]
            n_held = overlap
    yield "".join(held)


def _passages(text: str, wanted: np.ndarray, runs: Container[str]) -> Iterator[str]:
    """The longest passages of `text` of which every run is one of `runs`, whose sorted hashes are `wanted`."""
    hashes = _hashes(text)
    shift = np.uint64(64 - FILTER_BITS)
    may_be = np.zeros(1 << FILTER_BITS, bool)  # by the highest bits, to look up few
    may_be[wanted >> shift] = True
    places = np.flatnonzero(may_be[hashes >> shift])
    nearest = np.searchsorted(wanted, hashes[places]).clip(max=len(wanted) - 1)
    same = places[wanted[nearest] == hashes[places]].tolist()
    first = last = None  # runs of the passage that is being read
    for place in (place for place in same if text[place : place + RUN] in runs):
        if first is None:
            first = place
        elif place != last + 1:
            yield text[first : last + RUN]
            first = place
        last = place
    if first is not None:
        yield text[first : last + RUN]


def _hashes(text: str) -> np.ndarray:
    """Of each run of `text`: sum of character · BASE^(place in the run) modulo 2**64, uint64 of shape (n_runs,)."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if len(points) < RUN:
        return np.zeros(0, np.uint64)
    sums = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(points * _powers(BASE, len(points)), out=sums[1:])  # all of it wraps around
    inverse = np.uint64(pow(int(BASE), -1, 1 << 64))
    return (sums[RUN:] - sums[:-RUN]) * _powers(inverse, len(points) - RUN + 1)


def _powers(base: np.uint64, n: int) -> np.ndarray:
    """base^0, base^1, …, base^(n-1) modulo 2**64."""
    powers = np.full(n, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _longer(text: str, passage: str, best: str) -> str:
    """The longest string of both `text` and `passage`, if it is longer than `best`; else that."""
    start, length = 0, max(len(best), RUN - 1)
    while start + length < len(passage):
        if passage[start : start + length + 1] in text:
            length += 1
            best = passage[start : start + length]
        else:
            start += 1
    return best
