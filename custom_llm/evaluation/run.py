"""The parts of an evaluation: each is a table for a person, and the same figures as plain values."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.common.files import write_bytes
from custom_llm.common.progress import Progress
from custom_llm.config.sampling import MAX_SEED, Sampling
from custom_llm.evaluation.held_out import Text
from custom_llm.evaluation.metrics.diversity import diversity
from custom_llm.evaluation.metrics.grades import QUALITIES, judge
from custom_llm.evaluation.metrics.memorization import Copies, find_copies
from custom_llm.evaluation.metrics.quality import measure
from custom_llm.evaluation.metrics.quantization import recommend
from custom_llm.evaluation.models import Scorer
from custom_llm.evaluation.samples import Sample, write_samples
from custom_llm.evaluation.tables import (
    Section,
    judge_section,
    longest_copy,
    mean_grade,
    quality_section,
    quantization_section,
    samples_section,
    share_copied,
)

Part = tuple[Section, dict[str, Any]]
FIGURES = ("loss", "perplexity", "bits_per_byte", "accuracy", "tokens_per_second")


def score_models(models: Sequence[Scorer], ids: Sequence[int], text: str) -> Part:
    """How well each model predicts the tokens of the text of that name."""
    results, n = [], len(ids) - 1
    with Progress("scoring") as progress:
        for place, model in enumerate(models):

            def show(done: int, before: int = place * n, path: str = model.path) -> None:
                progress.update((before + done) / (n * len(models)), path)

            n_bytes = model.n_bytes(ids[1:])
            quality = measure(model.path, model.logprobs, ids, model.window, n_bytes, show)
            results.append((model.path, model.form, quality))
    values = [
        {"model": path, "computed_by": form, **asdict(quality), **{name: getattr(quality, name) for name in FIGURES}}
        for path, form, quality in results
    ]
    return quality_section(results, text), {"models": values}


def find_trained(models: Sequence[Scorer]) -> Scorer:
    """The first one that PyTorch computes, of which files are made. Raises UserError when there is none."""
    for model in models:
        if model.tokenizer is not None:
            return model
    raise UserError("--quantization_report is made of PyTorch's weights; give --model trained_model.pth as well")


def find_writer(models: Sequence[Scorer]) -> Scorer:
    """The first one that can write. Raises UserError when there is none."""
    for model in models:
        if model.engine is not None:
            return model
    raise UserError("texts are written by a .pth or a .gguf; give one with --model as well")


def report_quantization(
    trained: Scorer, ids: Sequence[int], quant_types: Sequence[str], picture: str | Path, threads: int | None
) -> Part:
    """What each type costs a model in PyTorch, with a picture of it, or a line that says why there is none.

    Raises:
        UserError: see `quantize_and_compare`.
    """
    from custom_llm.evaluation.picture import draw
    from custom_llm.evaluation.quantized import quantize_and_compare

    candidates = quantize_and_compare(trained, trained.engine, quant_types, ids, threads)
    best, sentence = recommend(candidates)
    section = quantization_section(candidates, sentence)
    try:
        write_bytes(picture, draw(candidates, best))
        section.lines.append(f"The picture of it is {picture}.")
    except UserError as error:  # the figures took longer
        section.lines.append(f"There is no picture of it: {error}.")
    types = [
        {
            "type": item.quant_type, "bytes": item.n_bytes, "bits_per_byte": item.bits_per_byte,
            "kl_mean": item.fidelity.kl_mean, "kl_99": item.fidelity.kl_99, "agreement": item.fidelity.agreement,
            "tokens_per_second": item.speed, "note": item.note,
        }
        for item in candidates
    ]  # fmt: skip
    return section, {"quantization": {"types": types, "recommended": best.quant_type, "sentence": sentence}}


@dataclass(frozen=True)
class Written:
    """Texts of a model.

    Attributes:
        name: the model.
        samples: its texts, each beside what people wrote in its place.
        sampling: how its tokens were chosen; its seed is that of the first text.
    """

    name: str
    samples: list[Sample]
    sampling: Sampling

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"model": self.name, "sampling": asdict(self.sampling), "texts": list(map(asdict, self.samples))}


def write_texts(
    model: Scorer, ids: Sequence[int], n: int, prompt_tokens: int, max_tokens: int, sampling: Sampling
) -> Written:
    """Let a model continue `n` passages of a text.

    Raises:
        UserError: see `write_samples`.
    """
    if sampling.seed is None:
        sampling = replace(sampling, seed=secrets.randbelow(MAX_SEED))
    with Progress("writing texts") as progress:
        samples = write_samples(
            model, model.engine, ids, n, prompt_tokens, max_tokens, sampling,
            lambda done: progress.update(done / n, f"{done} of {n}"),
        )  # fmt: skip
    return Written(model.path, samples, sampling)


def measure_texts(written: Written, text: Text) -> Part:
    """How much a model repeats itself, and copies of its training text, where that is known."""
    versions = {
        "model": [sample.text for sample in written.samples],
        "people": [sample.human for sample in written.samples],
    }
    copies: list[list[Copies]] = []
    if text.training is not None:
        with Progress("looking for copies in the training text", delay=1, has_end=False) as progress:
            pieces = text.training(lambda n: progress.update(0, f"{n / 1e6:,.0f} million tokens"))
            found = find_copies([*versions["model"], *versions["people"]], pieces)
        copies = [found[: len(written.samples)], found[len(written.samples) :]]
    diversities = [diversity(texts) for texts in versions.values()]
    values: dict[str, Any] = {f"of_{kind}": asdict(found) for kind, found in zip(versions, diversities, strict=True)}
    for kind, found in zip(versions, copies, strict=False):
        values[f"of_{kind}"] |= {"copied": share_copied(found), "longest_copy": longest_copy(found)}
    return samples_section(written.name, *diversities, copies), {"written": written.to_dict(), "samples": values}


def grade_texts(written: Written, judge_name: str, ask: Callable[[str, str], str]) -> Part:
    """What a judge thinks of a model's texts, and of what people wrote in their place."""
    samples = written.samples
    texts = [(sample.prompt, sample.text) for sample in samples] + [(sample.prompt, sample.human) for sample in samples]
    with Progress("waiting for the judge") as progress:
        grades = judge(ask, texts, lambda n: progress.update(n / len(texts), f"{n} of {len(texts)}"))
    graded = [(written.name, grades[: len(samples)]), ("held-out text", grades[len(samples) :])]
    values = {
        kind: {"means": {name: mean_grade(found, name) for name in QUALITIES}, "grades": list(map(asdict, found))}
        for kind, (_, found) in zip(("of_model", "of_people"), graded, strict=True)
    }
    section = judge_section(judge_name, graded)
    return section, {"written": written.to_dict(), "judge": {"judge": judge_name, **values}}
