"""What the bundled stories are made of, read from plots.txt and words.txt, whose heads say how they are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}


@dataclass(frozen=True)
class Character:
    """A hero or a helper, always with the same traits."""

    name: str
    pronoun: str
    who: str
    loves: str = ""
    home: str = ""
    joy: str = ""
    hand: str = "hand"


@dataclass(frozen=True)
class Plot:
    """One course of events: a text (see `parse_plot`), what may be drawn for it, and who would be wrong in it."""

    name: str
    text: str
    cases: tuple[dict[str, str], ...]
    not_for: tuple[str, ...]


@dataclass(frozen=True)
class Beat:
    """One moment of a plot: its wordings, and whether a story may go without it."""

    wordings: list[str]
    optional: bool = False


def parse_plot(text: str) -> list[list[Beat]]:
    """The paragraphs of a plot's text, each a list of beats."""
    paragraphs: list[list[Beat]] = [[]]
    for line in text.strip().splitlines():
        line = " ".join(line.split())
        mark, _, rest = line.partition(" ")
        if not mark:
            paragraphs.append([])
        elif mark == "|":
            assert paragraphs[-1], f"no beat above the wording {rest!r}"
            paragraphs[-1][-1].wordings.append(rest)
        elif mark == "?":
            paragraphs[-1].append(Beat([rest], optional=True))
        else:
            paragraphs[-1].append(Beat([line]))
    assert all(paragraphs), f"two empty lines in {text!r}"
    return paragraphs


def _read(name: str) -> dict[str, list[str]]:
    """The parts of a file: what stands behind the `=` of each → the lines below it, without comments."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            assert line[2:] not in parts, f"{name} has {line} twice"
            lines = parts[line[2:]] = []
        elif not line.startswith("#"):
            lines.append(line)
    return parts


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.split(" | "))


def _plot(name: str, lines: list[str]) -> Plot:
    assert "" in lines, f"plot {name} has no empty line before its text"
    begin = lines.index("")
    names, not_for, cases = (), (), []
    for line in lines[:begin]:
        if line.startswith("not for: "):
            not_for = tuple(line.removeprefix("not for: ").split(", "))
        elif line.startswith("cases: "):
            names = _cells(line.removeprefix("cases: "))
        else:
            cells = _cells(line.removeprefix("- "))
            assert line.startswith("- ") and len(cells) == len(names), f"plot {name}: {line!r} is not {names}"
            cases.append(dict(zip(names, cells, strict=True)))
    return Plot(name, "\n".join(lines[begin:]), tuple(cases) or ({},), not_for)


_WORDS = {name: [line for line in lines if line] for name, lines in _read("words.txt").items()}
HEROES, HELPERS = (tuple(Character(*_cells(line)) for line in _WORDS.pop(name)) for name in ("heroes", "helpers"))
# Name → the words of which one is drawn for a story, and the wordings of which one is drawn at every use.
WORDS, PHRASES = (
    {name.removeprefix(kind): lines for name, lines in _WORDS.items() if name.startswith(kind)}
    for kind in ("word ", "phrase ")
)
PLOTS = tuple(_plot(name, lines) for name, lines in _read("plots.txt").items())
assert len(WORDS) + len(PHRASES) == len(_WORDS), f"words.txt: {[*_WORDS]} are not all of words and phrases"
assert {c.pronoun for c in (*HEROES, *HELPERS)} <= {*PRONOUNS}, f"words.txt: a pronoun that is not of {[*PRONOUNS]}"
