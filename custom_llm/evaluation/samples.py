"""Texts that a model writes to be looked at, and those that people wrote in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from custom_llm.config.sampling import MAX_SEED, Sampling
from custom_llm.evaluation.models import Scorer
from custom_llm.inference.engine import Engine

LINE_SEARCHED = 1000  # tokens in which the beginning of a line is looked for


@dataclass(frozen=True)
class Sample:
    """A text in two versions.

    Attributes:
        prompt: what both begin with; empty for an empty page.
        text: how the model went on.
        human: how the held-out text goes on, at most as long.
    """

    prompt: str
    text: str
    human: str


def write_samples(
    model: Scorer,
    engine: Engine,
    ids: Sequence[int],
    n: int,
    prompt_tokens: int,
    max_tokens: int,
    sampling: Sampling,
    on_sample: Callable[[int], object] = lambda n: None,
) -> list[Sample]:
    """Let a model continue `n` passages of a text, each with another seed.

    Args:
        ids: the text, longer than a passage; they are taken from all over it, where lines begin if some do.
        prompt_tokens: of a passage; 0 starts on an empty page.
        sampling: with a seed.
        on_sample: called with the number of texts so far.

    Raises:
        UserError: the model computes nan, or nothing it can spell fits the grammar.
    """
    samples = []
    for place in range(n):
        start = _line_start(model, ids, place * (len(ids) - prompt_tokens) // n, len(ids) - prompt_tokens)
        prompt = list(ids[start : start + prompt_tokens])
        settings = replace(sampling, seed=(sampling.seed + place) % (MAX_SEED + 1))
        text = "".join(piece.text for piece in engine.stream(prompt, max_tokens, settings))
        follows = list(ids[start + prompt_tokens : start + prompt_tokens + max_tokens])
        if model.end_of_text in follows:
            follows = follows[: follows.index(model.end_of_text)]
        samples.append(Sample(model.text_of(prompt), text, model.text_of(follows)[: len(text)]))
        on_sample(place + 1)
    return samples


def _line_start(model: Scorer, ids: Sequence[int], start: int, stop: int) -> int:
    """The first beginning of a line from `start` on, and before `stop`; `start` where there is none nearby."""
    for place in range(start, min(stop, start + LINE_SEARCHED)):
        if place == 0 or ids[place - 1] == model.end_of_text or model.spell(ids[place - 1 : place]).endswith(b"\n"):
            return place
    return start
