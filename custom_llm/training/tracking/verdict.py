"""What a training came to, by its curves: too long for its text, too short, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from custom_llm.common.steps import command
from custom_llm.training.tracking.about import About
from custom_llm.training.tracking.history import Point, best

RISE = 1.01  # how far above its lowest the held-out loss ends when a text was learnt by heart
# Where there is more to learn, the second half of a training brings the held-out loss down to this share at least: the
# first while nothing is known by heart, so that the training loss is like it, and the other in any case.
FALL, STEEP_FALL = 0.97, 0.93
ALIKE = 0.9  # of the held-out loss; a training loss that is no lower is like it
LAST = 0.1  # share of the tokens that are read last, over which the training loss is taken


def describe_overfitting(points: Sequence[Point], about: About) -> str | None:
    """What to say if the held-out loss rose while the text of the training was learnt ever better; else None."""
    lowest = best(points)
    if lowest is None:
        return None
    last = [point for point in points if point.held_out is not None][-1].held_out
    loss = _last_loss(points)
    if not (last > RISE * lowest.held_out and loss < ALIKE * last):
        return None
    dropout = "--dropout 0.2, " if about.dropout < 0.2 else ""
    return (
        f"From step {lowest.step:,} on the held-out loss rose, from {lowest.held_out:.4f} to {last:.4f}, and the "
        f"training loss came to {loss:.4f}: what the model learnt then, it learnt by heart. {about.model_path} holds "
        f"the weights of step {lowest.step:,}. More text helps most; else {dropout}fewer --n_layer or a smaller "
        f"--n_embd ({command('llm_model')}), or a shorter training."
    )


def describe_underfitting(points: Sequence[Point], about: About) -> str | None:
    """What to say if the held-out loss was still falling at the end; else None."""
    lowest = best(points)
    if lowest is None or lowest.step != points[-1].step:
        return None
    before = best([point for point in points if point.step <= lowest.step / 2])
    fall = FALL if _last_loss(points) >= ALIKE * lowest.held_out else STEEP_FALL
    if before is not None and lowest.held_out > fall * before.held_out:
        return None
    return (
        f"There is more to learn: the held-out loss was still falling at the end, to {lowest.held_out:.4f}. More "
        f"training helps most: {about.command} --resume {about.longer}"
    )


def _last_loss(points: Sequence[Point]) -> float:
    """The mean training loss of the tokens that were read last."""
    begin = (1 - LAST) * points[-1].tokens
    counts = [points[0].tokens, *(after.tokens - before.tokens for before, after in pairwise(points))]
    last = [(point.loss, n) for point, n in zip(points, counts, strict=True) if point.tokens > begin]
    return sum(loss * n for loss, n in last) / sum(n for _, n in last)
