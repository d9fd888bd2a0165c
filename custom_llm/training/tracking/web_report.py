"""A training as one page: curves, texts as they improved, figures, options. It needs no network and no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from custom_llm.common.steps import portable
from custom_llm.training.tracking.history import About, Point, best
from custom_llm.training.tracking.verdict import Verdict, explain, judge

_UNSEEN = "\n\t\u00a0\u00ad\u200c\u200d\u3000"  # what belongs into a text: breaks, spaces, what joins letters
MOST_ROWS, MOST_TEXTS = 20, 10  # shown of the reports
REFRESH = 10  # seconds after which a page is loaded anew

PAGE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Live:
    """How far a training is that is under way."""

    progress: float  # from 0 to 1
    left: float | None  # seconds; None: not known yet
    now: str  # the time of day


def make_page(
    about: About, points: Sequence[Point], status: str, picture: str | None, untrained: str | None = None,
    text: str | None = None, live: Live | None = None,
) -> str:  # fmt: skip
    """The page.

    Args:
        status: under way, stopped, finished, …
        picture: an <svg> element, or None.
        untrained: what the model wrote before it was trained.
        text: what it writes at the end.
        live: of a training that is under way, whose page loads itself anew.
    """
    name = _safe(about.model_path)
    head = f"Trained on {_safe(about.corpus)}: {_safe(status)}"
    if points:
        head += f" after {points[-1].step:,} steps in {_duration(points[-1].seconds)}"
    parts = [f'<h1>{name}</h1>\n<p class="faint">{head}.</p>']
    if live is not None:
        left = "" if live.left is None else f", about {_duration(live.left)} left"
        parts.append(
            f'<p><progress value="{live.progress:.3f}" aria-label="progress"></progress> {live.progress:.0%}{left} '
            f'<span class="faint">(at {live.now}; the page follows by itself)</span></p>'
        )
    if points:
        parts += [_figures(about, points[-1], best(points)), _verdict(about, points, status)]
    if picture is not None:
        parts.append(_loss(points, picture))
    parts += [_texts(points, untrained, text), _tokens(about), _reports(points)]
    tables = "".join(_table(title, options) for title, options in about.tables.items())
    parts.append(f'<h2>Settings</h2>\n<div class="columns">{tables}</div>')
    page = Template(PAGE.read_text(encoding="utf-8"))
    refresh = "" if live is None else f'<meta http-equiv="refresh" content="{REFRESH}">'
    return page.substitute(name=name, refresh=refresh, body="\n".join(filter(None, parts)))


def _verdict(about: About, points: Sequence[Point], status: str) -> str:
    """What the training came to; before its end, only that it memorises."""
    if status != "finished" and judge(points, math.log(about.vocab_size)) is not Verdict.MEMORISED:
        return ""
    sentence, *meaning = explain(points, about)
    more = "".join(f"<p>{_safe(portable(line))}</p>" for line in [*meaning, *about.gain])
    return f'<p class="note">{_safe(portable(sentence))}</p>\n{more}'


def _loss(points: Sequence[Point], picture: str) -> str:
    last, lowest = points[-1], best(points)
    said = f"Loss over {last.step:,} steps: the training loss goes from {points[0].loss:.3f} to {last.loss:.3f}"
    if lowest is not None:
        said += f"; the held-out loss is lowest at step {lowest.step:,}, with {lowest.held_out:.3f}"
    picture = picture.replace("<svg", f'<svg role="img" aria-label="{said}."', 1)
    caption = (
        "The loss says how far off the model is with what comes next: the lower, the better. Training: on what "
        "it reads and learns from, with dropout if there is any. Held out: on a part of the text it never learns from. "
        "Where that one rises while the other falls, the model memorises."
    )
    return f"<h2>Loss</h2>\n<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _tokens(about: About) -> str:
    """The beginning of the text in pieces, as the model reads it."""
    if not about.pieces:
        return ""
    shown = "".join(f"<span>{_safe(piece)}</span>" for piece in about.pieces)
    caption = f"Each colour is one token; the model knows {about.vocab_size:,}, which are {_safe(about.unit)}."
    title = "The text as it is read"
    return f'<h2>{title}</h2>\n<p class="faint">{caption}</p>\n<p class="tokens">{shown}</p>'


def _figures(about: About, last: Point, lowest: Point | None) -> str:
    values = {
        "parameters": f"{about.n_parameters:,}",
        "tokens read": f"{last.tokens:,}",
        "epochs": f"{last.epoch:.4g}",
        "time": _duration(last.seconds),
        "tokens a second": f"{last.tokens / max(last.seconds, 1e-9):,.0f}",
    }
    if lowest is not None:
        values["lowest held-out loss"] = f"{lowest.held_out:.4f}"
        values["bits per byte there"] = f"{lowest.bits_per_byte:.4f}"
    if last.held_out is not None:
        values["last held-out loss"] = f"{last.held_out:.4f}"
    items = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in values.items())
    return f'<dl class="figures">{items}</dl>'


def _texts(points: Sequence[Point], untrained: str | None, text: str | None) -> str:
    items = [] if untrained is None else [("Before training", untrained)]
    for point in _some([point for point in points if point.sample is not None], MOST_TEXTS):
        held_out = "" if point.held_out is None else f", held-out loss {point.held_out:.3f}"
        items.append((f"Step {point.step:,}{held_out}", point.sample))
    if text is not None:
        items.append(("At the end, by the weights that are kept", text))
    if not items:
        return ""
    listed = "\n".join(f'<li>{place}<pre dir="auto" lang="">{_safe(sample)}</pre></li>' for place, sample in items)
    return f"<h2>What the model wrote</h2>\n<ol>\n{listed}\n</ol>"


def _reports(points: Sequence[Point]) -> str:
    reports = [point for point in points if point.held_out is not None]
    if not reports:
        return ""
    shown = _some(reports, MOST_ROWS)
    rows = "".join(
        f'<tr><th scope="row">{p.step:,}</th><td>{p.epoch:.2f}</td><td>{_duration(p.seconds)}</td><td>{p.loss:.4f}</td>'
        f"<td>{p.held_out:.4f}</td><td>{p.bits_per_byte:.4f}</td><td>{p.tokens_per_second:,.0f}</td></tr>"
        for p in shown
    )
    names = ("step", "epochs", "time", "training loss", "held-out loss", "bits per byte", "tokens a second")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    some = f"{len(shown)} of {len(reports)} reports. " if len(shown) < len(reports) else ""
    caption = (
        f"{some}Losses in nats per token; the training loss is the mean since the point before. Bits per byte are the "
        "held-out loss for each byte of the text, by which models with other tokens compare."
    )
    return (
        f'<h2>Reports</h2>\n<div class="wide" tabindex="0" role="region" aria-label="Reports">'
        f'<table class="numbers"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _table(title: str, options: Mapping[str, object]) -> str:
    rows = ""
    for name, value in options.items():
        shown = "–" if value is None else f"{value:g}" if isinstance(value, float) else value
        rows += f'<tr><th scope="row">{_safe(name)}</th><td>{_safe(shown)}</td></tr>'
    return f"<table><caption>{_safe(title)}</caption><tbody>{rows}</tbody></table>"


def _some(points: Sequence[Point], most: int) -> Sequence[Point]:
    """So many of them at most, from the first to the last."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _duration(seconds: float) -> str:
    """62.5 as '1 min 2 s'."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min {int(seconds) % 60} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _safe(value: object) -> str:
    """Text for a page: escaped, and U+FFFD in place of what HTML cannot hold or would be unseen."""
    kept = (char if char.isprintable() or char in _UNSEEN else "\N{REPLACEMENT CHARACTER}" for char in str(value))
    return escape("".join(kept))
