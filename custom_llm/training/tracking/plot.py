"""The curves of a training as a picture. Imports matplotlib only when something is drawn."""

from __future__ import annotations

import io
import logging
import math
import re
from typing import TYPE_CHECKING

from custom_llm.training.tracking.history import Point, best

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# name → colour on light paper; in a page they are CSS variables of these names
COLORS = {
    "paper": "#ffffff", "ink": "#1f2933", "faint": "#7b8794", "grid": "#e4e7eb",
    "train": "#2b6cb0", "held-out": "#c2410c", "rate": "#b8c0c9",
}  # fmt: skip
INCHES, DOTS_PER_INCH = (8.0, 4.5), 150
# Shares of the width and height that are left to numbers such as 0.00015; finding out takes half as long as drawing.
MARGINS = dict(left=0.1, right=0.885, bottom=0.115, top=0.96)
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "curves", "font.size": 10, "axes.spines.top": False,
    "text.color": COLORS["ink"], "axes.labelcolor": COLORS["ink"], "axes.edgecolor": COLORS["faint"],
    "xtick.color": COLORS["faint"], "ytick.color": COLORS["faint"], "xtick.labelcolor": COLORS["ink"],
    "ytick.labelcolor": COLORS["ink"], "grid.color": COLORS["grid"],
}  # fmt: skip


def draw_curves(points: list[Point]) -> tuple[bytes, str]:
    """The loss and the learning rate over the steps: a PNG, and an <svg> element with CSS variables as colours.

    ImportError where matplotlib is not installed.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of folders it cannot write
    import matplotlib

    png, file = io.BytesIO(), io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a person's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        figure = _draw(points)
        figure.savefig(png, format="png", dpi=DOTS_PER_INCH)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # For a page: the element alone, as wide as there is room, in the colours of the page.
    svg = file.getvalue()
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg[svg.index("<svg") :])
    svg = svg.replace("xlink:href", "href")
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    return png.getvalue(), svg


def _draw(points: list[Point]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = Figure(figsize=INCHES)
    figure.subplots_adjust(**MARGINS)
    loss = figure.add_subplot()
    rate = loss.twinx()
    loss.set_zorder(rate.get_zorder() + 1)  # above the learning rate
    loss.patch.set_visible(False)
    steps = [point.step for point in points]
    alone = "o" if len(points) == 1 else None  # a line of one point is not seen
    (schedule,) = rate.plot(
        steps, _finite([point.learning_rate for point in points]), color=COLORS["rate"], linewidth=1.2, marker=alone,
        label="learning rate (right)",
    )  # fmt: skip
    lines = loss.plot(
        steps, _finite([point.loss for point in points]), color=COLORS["train"], linewidth=1.4, marker=alone,
        label="training",
    )  # fmt: skip
    measured = [point for point in points if point.held_out is not None]
    if measured:
        lines += loss.plot(
            [point.step for point in measured], _finite([point.held_out for point in measured]),
            color=COLORS["held-out"], linewidth=1.8, marker="o", markersize=3.5 if len(measured) <= 60 else 0,
            label="held out",
        )  # fmt: skip
    lowest = best(points)
    if lowest is not None:
        lines += loss.plot(
            [lowest.step], [lowest.held_out], color=COLORS["held-out"], linestyle="none", marker="o", markersize=11,
            markerfacecolor="none", markeredgewidth=1.5, label=f"lowest: {lowest.held_out:.4f} at step {lowest.step:,}",
        )  # fmt: skip
    loss.set_xlabel("step")
    loss.set_ylabel("loss (lower is better)")
    rate.set_ylabel("learning rate", color=COLORS["faint"])
    rate.set_ylim(bottom=0)
    rate.tick_params(axis="y", labelcolor=COLORS["faint"], color=COLORS["grid"])
    rate.spines["right"].set_color(COLORS["grid"])
    loss.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    loss.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    loss.grid(axis="y")
    loss.set_axisbelow(True)
    loss.legend(handles=[*lines, schedule], loc="upper right", facecolor=COLORS["paper"], edgecolor="none")
    return figure


def _finite(values: list[float]) -> list[float]:
    """Infinity as NaN, where a line has a gap."""
    return [value if math.isfinite(value) else math.nan for value in values]
