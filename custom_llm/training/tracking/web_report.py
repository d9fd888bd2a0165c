"""A training as one page: curves, texts as they improved, figures, options. It needs no network and no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from custom_llm.training.tracking.history import About, Point, best, describe_overfitting, describe_underfitting

_UNSEEN = "\n\t\u00a0\u00ad\u200c\u200d\u3000"  # what belongs into a text: breaks, spaces, what joins letters
MOST_ROWS, MOST_TEXTS = 20, 10  # shown of the reports

PAGE = Path(__file__).with_name("page.html")


def make_page(about: About, points: Sequence[Point], status: str, picture: str | None, text: str | None) -> str:
    """The page.

    status: under way, stopped, …; picture: an <svg> element, or None; text: what the model writes at the end.
    """
    name = _safe(about.model_path)
    last, lowest = points[-1], best(points)
    head = f"Trained on {_safe(about.corpus)}: {status} after {last.step:,} steps in {_duration(last.seconds)}."
    parts = [f'<h1>{name}</h1>\n<p class="faint">{head}</p>', _figures(about, last, lowest)]
    verdict = describe_overfitting(points, about)
    if verdict is None and status == "finished":
        verdict = describe_underfitting(points, about)
    if verdict is not None:
        parts.append(f'<p class="note">{_safe(verdict)}</p>')
    if picture is not None:
        said = f"Loss over {last.step:,} steps: the training loss goes from {points[0].loss:.3f} to {last.loss:.3f}"
        if lowest is not None:
            said += f"; the held-out loss is lowest at step {lowest.step:,}, with {lowest.held_out:.3f}"
        picture = picture.replace("<svg", f'<svg role="img" aria-label="{said}."', 1)
        caption = "Training: the mean over the batches that were read, with dropout if there is any. Held out: without."
        parts.append(f"<h2>Loss</h2>\n<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    parts += [_texts(points, text), _reports(points)]
    tables = "".join(_table(title, options) for title, options in about.tables.items())
    parts.append(f'<h2>Settings</h2>\n<div class="columns">{tables}</div>')
    page = Template(PAGE.read_text(encoding="utf-8"))
    return page.substitute(name=name, body="\n".join(filter(None, parts)))


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


def _texts(points: Sequence[Point], text: str | None) -> str:
    items = []
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
    caption = f"{some}Losses in nats per token; the training loss is the mean since the point before."
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
