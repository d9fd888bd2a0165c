"""The size of files against their quality, as a picture. Imports matplotlib only when something is drawn."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence

from custom_llm.common.errors import UserError
from custom_llm.evaluation.metrics.quantization import TOLERANCE, Candidate

INK, FAINT, POINT, BEST, WITHIN = "#1f2933", "#7b8794", "#2b6cb0", "#c2410c", "#e6f0fa"
INCHES, DOTS_PER_INCH = (8.0, 4.5), 120


def draw(candidates: Sequence[Candidate], best: Candidate) -> bytes:
    """A PNG of all candidates, F32 first, and which of them is recommended. Raises UserError without matplotlib."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # silent about folders that it cannot write
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--picture needs matplotlib; pip install matplotlib") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a person's matplotlibrc says
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        sizes = [item.n_bytes / 1e6 for item in candidates]
        bits = [item.bits_per_byte for item in candidates]
        axes.axhspan(min(bits), (1 + TOLERANCE) * bits[0], color=WITHIN, label=f"within {TOLERANCE:.0%} of F32")
        for item, x, y in zip(candidates, sizes, bits, strict=True):
            color = BEST if item is best else POINT
            axes.plot([x], [y], "o", color=color, label="recommended" if item is best else None)
            axes.annotate(item.quant_type, (x, y), (6, 6), textcoords="offset points", color=INK, fontsize=9)
        axes.set_xlabel("size of the file (MB)", color=INK)
        axes.set_ylabel("bits per byte of held-out text (lower is better)", color=INK)
        axes.set_xlim(0, 1.1 * max(sizes))
        axes.margins(y=0.15)
        axes.tick_params(colors=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb")
        axes.set_axisbelow(True)
        axes.legend(loc="upper right", frameon=False, fontsize=9)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=DOTS_PER_INCH)
    return png.getvalue()
