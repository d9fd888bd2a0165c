"""The parts of an evaluation: each measures, and returns a table for a person with the same figures for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom_llm.common.errors import UserError
from custom_llm.common.files import write_bytes
from custom_llm.common.progress import Progress
from custom_llm.common.text import counted
from custom_llm.config.sampling import Sampling
from custom_llm.evaluation.metrics.diversity import Diversity, diversity
from custom_llm.evaluation.metrics.grades import AGES, QUALITIES, Grades, grade, mean_grade
from custom_llm.evaluation.metrics.memorization import (
    RUN,
    Copies,
    find_copies,
    judge_copies,
    longest_copy,
    share_copied,
)
from custom_llm.evaluation.metrics.quality import measure
from custom_llm.evaluation.metrics.quantization import recommend
from custom_llm.evaluation.models import Scorer
from custom_llm.evaluation.tables import Table
from custom_llm.llamacpp import MISSING, is_available

if TYPE_CHECKING:
    from custom_llm.evaluation.held_out import HeldOutText
    from custom_llm.evaluation.samples import Samples


FIGURES = ("loss", "perplexity", "bits_per_byte", "accuracy", "tokens_per_second")
SHORTEST_SHOWN, LONGEST_SHOWN = 20, 400  # characters of a copy or a repeat


def score_models(models: Sequence[Scorer], ids: Sequence[int], text: str) -> Table:
    """How well each model predicts the tokens of the text of that name."""
    rows, values, bits, n = [], [], [], len(ids) - 1
    with Progress("scoring") as progress:
        for place, model in enumerate(models):

            def show(done: int, place: int = place, path: str = model.path) -> None:
                progress.update((place + done / n) / len(models), path)

            n_bytes = model.n_bytes(ids[1:])
            found = measure(model.path, model.logprobs, ids, model.window, n_bytes, show)
            rows.append([
                model.path, model.form, f"{found.loss:.4f}", f"{found.perplexity:.3f}", f"{found.bits_per_byte:.4f}",
                f"{found.accuracy:.1%}", f"{found.seconds:.1f}", f"{found.tokens_per_second:,.0f}",
            ])  # fmt: skip
            figures = {name: getattr(found, name) for name in FIGURES}
            values.append({"model": model.path, "computed_by": model.form, **asdict(found), **figures})
            bits.append(found.bits_per_byte)
    columns = ["model", "computed by", "loss", "perplexity", "bits per byte", "top-1", "seconds", "tokens/s"]
    lines = [f"{counted(n, 'token')} ({counted(models[0].n_bytes(ids[1:]), 'byte')}) of {text}"]
    if len(models) > 1:
        lines.append(f"Between the lowest and the highest lie {max(bits) - min(bits):.1e} bits per byte.")
    title = "How well the models predict the text"
    return Table(title, columns, rows, lines, n_names=2, values={"models": values})


def find_trained(models: Sequence[Scorer]) -> Scorer:
    """The first model that PyTorch computes, of which files can be made and compared with it. Raises UserError."""
    if not is_available():
        raise UserError(f"--quantization_report compares files that llama.cpp runs: {MISSING}")
    for model in models:
        if model.tokenizer is not None:
            return model
    raise UserError("--quantization_report is made of PyTorch's weights; give --model trained_model.pth as well")


def find_writer(models: Sequence[Scorer], sampling: Sampling) -> Scorer:
    """The first model that can write. Raises UserError when there is none, or it cannot write with these settings."""
    for model in models:
        if model.engine is not None:
            model.engine.check(sampling)
            return model
    raise UserError("texts are written by a .pth or a .gguf; give one with --model as well")


def report_quantization(
    trained: Scorer, ids: Sequence[int], quant_types: Sequence[str], picture: str | Path, threads: int | None
) -> Table:
    """What each type costs a model in PyTorch, with a picture of it, or a line that says why there is none."""
    from custom_llm.evaluation.quantized import compare_types, draw

    candidates = compare_types(trained, quant_types, ids, threads)
    best, sentence = recommend(candidates)
    rows, types = [], []
    for item in candidates:
        more = round(item.bits_per_byte / candidates[0].bits_per_byte - 1, 4) + 0.0  # which is never -0.00%
        far = item.fidelity
        rows.append([
            item.quant_type, f"{item.n_bytes / 1e6:.2f} MB", f"{item.bits_per_byte:.4f}", f"{more:+.2%}",
            f"{far.kl_mean:.1e}", f"{far.kl_99:.1e}", f"{far.agreement:.2%}", f"{item.speed:,.0f}",
        ])  # fmt: skip
        types.append({
            "type": item.quant_type, "bytes": item.n_bytes, "bits_per_byte": item.bits_per_byte,
            "kl_mean": far.kl_mean, "kl_99": far.kl_99, "agreement": far.agreement,
            "tokens_per_second": item.speed, "note": item.note,
        })  # fmt: skip
    lines = [sentence, *(f"Note: {item.note}." for item in candidates if item.note)]
    try:
        write_bytes(picture, draw(candidates, best))
        lines.append(f"The picture of it is {picture}.")
    except UserError as error:  # the figures took longer
        lines.append(f"There is no picture of it: {error}.")
    columns = ["type", "size", "bits per byte", "to F32", "KL, mean", "KL, 99 %", "same top-1", "tokens/s"]
    values = {"quantization": {"types": types, "recommended": best.quant_type, "sentence": sentence}}
    return Table("What quantization costs", columns, rows, lines, values=values)


def measure_samples(samples: Samples, text: HeldOutText) -> Table:
    """How much a model repeats itself, and copies of its training text, where that is known."""
    versions = [[sample.text for sample in samples.texts], [sample.human for sample in samples.texts]]
    found = [diversity(texts) for texts in versions]
    copies: list[list[Copies]] = []
    if text.training is not None:
        with Progress("looking for copies in the training text", delay=1, has_end=False) as progress:
            pieces = text.training(lambda n: progress.update(0, f"{n / 1e6:,.0f} million tokens"))
            all_copies = find_copies(versions[0] + versions[1], pieces)
        copies = [all_copies[: len(versions[0])], all_copies[len(versions[0]) :]]
    table = samples_table(samples.model, *found, copies)
    values: list[dict[str, Any]] = [asdict(item) for item in found]
    for figures, of_version in zip(values, copies, strict=False):
        figures |= {"copied": share_copied(of_version), "longest_copy": longest_copy(of_version)}
    table.values = {"written": asdict(samples), "samples": {"of_model": values[0], "of_people": values[1]}}
    return table


def samples_table(model: str, written: Diversity, human: Diversity, copies: Sequence[Sequence[Copies]]) -> Table:
    """What a model wrote beside what people did.

    copies: of the model's texts, and of the human ones; empty if the training text is not known.
    """
    columns = ["written by", "repeated 4-grams", "longest repeat", "distinct-1", "distinct-2", "distinct-3"]
    rows = [
        [
            name, f"{item.repeated:.1%}", counted(len(item.longest_repeat), "character"),
            *map("{:.3f}".format, item.distinct),
        ]
        for name, item in ((model, written), ("held-out text", human))
    ]  # fmt: skip
    examples, lines = [], []
    if copies:
        columns += ["copied", "longest copy"]
        for row, found in zip(rows, copies, strict=True):
            share = share_copied(found)
            row += ["–" if share is None else f"{share:.1%}", counted(len(longest_copy(found)), "character")]
        lines.append(f"Copied: the share of runs of {RUN} characters that stand verbatim in the training text.")
        if verdict := judge_copies(*map(share_copied, copies)):
            lines.append(verdict)
        if longest := longest_copy(copies[0]):
            examples.append(("The longest copy in what the model wrote", longest[:LONGEST_SHOWN]))
    else:
        lines.append("The training text is not known; --dataset_path names it, to look for copies of it.")
    if len(written.longest_repeat) >= SHORTEST_SHOWN:
        examples.append(("Its longest repeat", written.longest_repeat[:LONGEST_SHOWN]))
    return Table("What the model writes", columns, rows, lines, examples)


def grade_samples(samples: Samples, judge: str, ask: Callable[[str, str], str]) -> Table:
    """What a judge thinks of a model's texts, and of what people wrote in their place."""
    pairs = [(sample.prompt, sample.text) for sample in samples.texts]
    pairs += [(sample.prompt, sample.human) for sample in samples.texts]
    with Progress("waiting for the judge") as progress:
        grades = grade(ask, pairs, lambda n: progress.update(n / len(pairs), f"{n} of {len(pairs)}"))
    of_model, of_people = grades[: len(samples.texts)], grades[len(samples.texts) :]
    table = grades_table(judge, [(samples.model, of_model), ("held-out text", of_people)])
    values = {
        name: {"means": {quality: mean_grade(found, quality) for quality in QUALITIES}, "grades": [*map(asdict, found)]}
        for name, found in (("of_model", of_model), ("of_people", of_people))
    }
    table.values = {"written": asdict(samples), "judge": {"judge": judge, **values}}
    return table


def grades_table(judge: str, graded: Sequence[tuple[str, Sequence[Grades]]]) -> Table:
    """What a judge says of the texts of each writer; some grades may be missing."""
    rows = []
    problems: dict[str, None] = {}
    for name, grades in graded:
        means = [mean_grade(grades, quality) for quality in QUALITIES]
        ages = [item.age for item in grades if item.age]
        age = AGES[max(sorted(set(ages)), key=ages.count)] if ages else "–"
        n_read = sum(getattr(item, quality) is not None for item in grades for quality in QUALITIES)
        shown = ["–" if value is None else f"{value:.1f}" for value in means]
        rows.append([name, *shown, age, f"{n_read} of {len(grades) * len(QUALITIES)}"])
        problems |= dict.fromkeys(item.problem for item in grades if item.problem)
    lines = ["Grades from 1 to 10, on average; the age that was guessed most often, in years."]
    lines += [f"{problem[:1].upper()}{problem[1:]}" for problem in list(problems)[:3]]
    return Table(f"Graded by {judge}", ["written by", *QUALITIES, "age", "grades read"], rows, lines)
