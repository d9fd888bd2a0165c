"""What a training came to, in plain words: right, too short, too long; and the command that does better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from itertools import pairwise

from custom_llm.model.files import Origin
from custom_llm.training.tracking.history import About, Point, best

# Shares of a loss.
RISE = 1.01  # of the lowest held-out loss: where a later one is higher, it rose
ALIKE = 0.9  # of the held-out loss; a training loss that is no lower is like it, and
APART = 0.85  # one that is lower is of a text that begins to be memorised
GUESSED = 0.9  # of the loss of guessing; a held-out loss that is no lower is hardly better
# Where there is more to learn, the second half of a training brings the held-out loss down to this share at least: the
# first while nothing is memorised, so that the training loss is like it, and the other in any case.
FALL, STEEP_FALL = 0.97, 0.93
# Nats by which twice the training must lower the loss, going by the reports of the last steps.
NOTICEABLE, LAST_STEPS = 0.02, 0.1
LAST = 0.1  # share of the tokens that are read last, over which the training loss is taken


class Verdict(Enum):
    """How a training ended."""

    FINE = "as good as it gets"
    GAP_OPENING = "about to memorise"
    MEMORISED = "too long"
    TOO_SHORT = "too short"
    HARDLY_BEGUN = "hardly begun"
    UNSTEADY = "unsteady"
    UNKNOWN = "never tried on other text"


def judge(points: Sequence[Point], guessing: float) -> Verdict:
    """The one verdict on a training, by its losses; `guessing` is the loss of who knows nothing, in nats per token."""
    measured = [point for point in points if point.held_out is not None]
    lowest = best(measured)
    if lowest is None:
        return Verdict.UNKNOWN
    last, loss = measured[-1], _last_loss(points)
    if not last.held_out <= RISE * lowest.held_out:
        return Verdict.MEMORISED if loss < min(ALIKE * last.held_out, lowest.held_out) else Verdict.UNSTEADY
    if lowest.held_out > GUESSED * guessing:
        return Verdict.HARDLY_BEGUN
    if last is lowest and _still_falls(points, measured, loss):
        return Verdict.TOO_SHORT
    return Verdict.GAP_OPENING if loss < APART * last.held_out else Verdict.FINE


def _still_falls(points: Sequence[Point], measured: Sequence[Point], loss: float) -> bool:
    """Whether the held-out loss, which is at its lowest, would have gone on falling."""
    last = measured[-1]
    first_half = [point for point in points if point.step <= last.step / 2]
    half = best(first_half)
    # Where there was no report by then, the training loss tells as much, as nothing is memorised so early.
    before = half.held_out if half else first_half[-1].loss if first_half else math.inf
    if last.held_out > (FALL if loss >= ALIKE * last.held_out else STEEP_FALL) * before:
        return False
    earlier = [point for point in measured if point.step <= (1 - LAST_STEPS) * last.step]
    if not earlier:
        return True
    doublings = math.log2(last.step / earlier[-1].step)
    return not (earlier[-1].held_out - last.held_out < NOTICEABLE * doublings)


def _last_loss(points: Sequence[Point]) -> float:
    """The mean training loss of the tokens that were read last."""
    begin = (1 - LAST) * points[-1].tokens
    counts = [points[0].tokens, *(after.tokens - before.tokens for before, after in pairwise(points))]
    last = [(point.loss, n) for point, n in zip(points, counts, strict=True) if point.tokens > begin]
    return sum(loss * n for loss, n in last) / sum(n for _, n in last)


def explain(points: Sequence[Point], about: About) -> list[str]:
    """Lines for a person: what the training came to and what to do, and what its loss means."""
    verdict = judge(points, math.log(about.vocab_size))
    if verdict is Verdict.UNKNOWN:
        return ["The model was never tried on text that it has not seen: no report was made."]
    lowest, loss = best(points), _last_loss(points)
    last = [point for point in points if point.held_out is not None][-1].held_out
    less = f"Else a model that memorises less: {about.less}"
    there = f"{about.model_path} is the model of step {lowest.step:,}, before that."
    sentence = {
        Verdict.FINE: (
            f"As good as this model gets with this text: its loss on text it has not seen no longer falls "
            f"({lowest.held_out:.4f} at step {lowest.step:,}). More text or a larger model would do better."
        ),
        Verdict.GAP_OPENING: (
            f"Long enough: the model begins to memorise its text (a loss of {loss:.4f} there, {last:.4f} on text it "
            f"has not seen), so that more training would not help. More text helps most. {less}"
        ),
        Verdict.MEMORISED: (
            f"Too long for so little text: from step {lowest.step:,} on, the model memorised it. On text it has not "
            f"seen the loss rose from {lowest.held_out:.4f} to {last:.4f}, on its own it came to {loss:.4f}. {there} "
            f"More text helps most. {less}"
        ),
        Verdict.TOO_SHORT: (
            f"Too short: the model was still learning (a loss of {lowest.held_out:.4f} on text it has not seen, and "
            f"falling). More training helps most: {about.longer}"
        ),
        Verdict.HARDLY_BEGUN: (
            f"Much too short: the model is hardly better than guessing (a loss of {lowest.held_out:.4f} on text it has "
            f"not seen; guessing has {math.log(about.vocab_size):.4f}). Train it for longer: {about.longer}"
        ),
        Verdict.UNSTEADY: (
            f"Unsteady: the loss on text it has not seen rose from {lowest.held_out:.4f} to {last:.4f}, and nothing "
            f"was learnt by it. {there} Smaller steps help: {about.gentler}"
        ),
    }[verdict]
    return [sentence, *_meaning(lowest.held_out, about)]


ALMOST = 0.005  # share of a loss that nobody would notice


def with_gain(
    about: About, base: Origin, before: Mapping[str, float], after: Mapping[str, float],
    bits_of: Callable[[float], float], general_bytes: float,
) -> About:  # fmt: skip
    """`about` with lines on what a training from a base has gained, and what it has lost.

    Args:
        before, after: losses in nats per token, `held_out` and on `general` text.
        bits_of: a held-out loss → bits per byte.
        general_bytes: of a token of the general text, on average.
    """
    own = [bits_of(losses["held_out"]) for losses in (before, after)]
    general = [losses["general"] / math.log(2) / general_bytes for losses in (before, after)]
    if after["held_out"] < before["held_out"]:
        share = 1 - after["held_out"] / before["held_out"]
        gained = (
            f"Gained: {share:.0%} on the held-out text, which {base.name} had {own[0]:.3f} bits per byte on before and "
            f"the trained model has {own[1]:.3f} on."
        )
    else:
        gained = (
            f"Nothing was gained: no step was better on the held-out text than {base.name} is without training "
            f"({own[0]:.3f} bits per byte), and {about.model_path} is that. Smaller steps help: {about.gentler}"
        )
    change, figures = general[1] / general[0] - 1, f"{general[0]:.3f} bits per byte before, {general[1]:.3f} now"
    if abs(change) < ALMOST:
        lost = f"Nothing was forgotten: on general text it is as good as before ({figures})."
    elif change < 0:
        lost = f"Nothing was forgotten: on general text it got better by {-change:.1%} ({figures})."
    else:
        lost = f"Forgotten: on general text it got worse by {change:.1%} ({figures})."
    table = {
        "name": base.name, "license": base.license or None, "quantized": base.quantized or None,
        "held-out bits per byte before": own[0], "and after": own[1],
        "general bits per byte before": general[0], "and then": general[1],
    }  # fmt: skip
    return replace(about, gain=(gained, lost), tables={"Base": table, **about.tables})


def _meaning(loss: float, about: About) -> list[str]:
    """What a held-out loss says, without logarithms."""
    choices = math.exp(min(loss, 50))
    if choices > about.vocab_size:
        return []
    return [
        f"In other words: on text it has not seen, it wavers between {max(1.1, choices):,.1f} {about.unit} for the "
        f"next one; knowing nothing, it would between all {about.vocab_size:,}."
    ]
