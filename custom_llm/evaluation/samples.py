"""Texts that a model writes to be looked at, and those that people wrote in their place."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from custom_llm.common.progress import Progress
from custom_llm.config.sampling import MAX_SEED, Sampling
from custom_llm.evaluation.models import Scorer

LINE_SEARCHED = 1000  # tokens in which the beginning of a line is looked for


@dataclass(frozen=True)
class Sample:
    """A text in two versions."""

    prompt: str  # what both begin with; empty for an empty page
    text: str  # how the model went on
    human: str  # how the held-out text goes on, at most as long


@dataclass(frozen=True)
class Samples:
    """Texts of a model."""

    model: str  # its name
    sampling: Sampling  # how tokens were chosen; its seed is that of the first text
    texts: list[Sample]


def write_samples(
    model: Scorer, ids: Sequence[int], n: int, prompt_tokens: int, max_tokens: int, sampling: Sampling
) -> Samples:
    """Let a model continue `n` passages of a text, each with another seed.

    ids: the text, longer than a passage; they are taken from all over it, where lines begin if some do. prompt_tokens:
    of a passage; 0 starts on an empty page. Raises UserError when the model cannot write with these settings.
    """
    if sampling.seed is None:
        sampling = replace(sampling, seed=secrets.randbelow(MAX_SEED))
    texts = []
    with Progress("writing texts") as progress:
        for place in range(n):
            start = _line_start(model, ids, place * (len(ids) - prompt_tokens) // n, len(ids) - prompt_tokens)
            prompt = list(ids[start : start + prompt_tokens])
            settings = replace(sampling, seed=(sampling.seed + place) % (MAX_SEED + 1))
            text = "".join(
                piece.text for piece in model.engine.stream(model.engine.begun(prompt), max_tokens, settings)
            )
            follows = list(ids[start + prompt_tokens : start + prompt_tokens + max_tokens])
            if model.end_of_text in follows:
                follows = follows[: follows.index(model.end_of_text)]
            texts.append(Sample(model.text_of(prompt), text, model.text_of(follows)[: len(text)]))
            progress.update((place + 1) / n, f"{place + 1} of {n}")
    return Samples(model.path, sampling, texts)


def _line_start(model: Scorer, ids: Sequence[int], start: int, stop: int) -> int:
    """The first beginning of a line from `start` on, and before `stop`; `start` where there is none nearby."""
    for place in range(start, min(stop, start + LINE_SEARCHED)):
        if place == 0 or ids[place - 1] == model.end_of_text or model.spell(ids[place - 1 : place]).endswith(b"\n"):
            return place
    return start
