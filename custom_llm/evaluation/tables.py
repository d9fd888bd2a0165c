"""What was found, as a table for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from custom_llm.common.text import counted
from custom_llm.evaluation.metrics.diversity import Diversity
from custom_llm.evaluation.metrics.grades import AGES, QUALITIES, Grades
from custom_llm.evaluation.metrics.memorization import RUN, Copies
from custom_llm.evaluation.metrics.quality import Quality
from custom_llm.evaluation.metrics.quantization import Candidate


@dataclass
class Section:
    """A table with what there is to say about it.

    Attributes:
        rows: texts; the first `n_names` of each row are words, the others figures.
        lines: sentences under the table.
        examples: title → a text that is shown as it is.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]]
    lines: list[str] = field(default_factory=list)
    examples: list[tuple[str, str]] = field(default_factory=list)
    n_names: int = 1


def as_text(section: Section) -> str:
    """For a terminal: columns as wide as their widest entry, words on the left and figures on the right."""
    table = [section.columns, *section.rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [section.title]
    for row in table:
        cells = list(map(str.rjust, row, widths))
        cells[: section.n_names] = map(str.ljust, row[: section.n_names], widths)
        lines.append("  ".join(cells).rstrip())
    lines += section.lines
    for title, text in section.examples:
        lines += [f"{title}:", *(f"  | {line}" for line in _shown_lines(text))]
    return "\n".join(lines) + "\n"


def as_markdown(heading: str, sections: Sequence[Section]) -> str:
    """The same for a page."""
    lines = [f"# {_escaped(heading)}"]
    for section in sections:
        lines += ["", f"## {_escaped(section.title)}", "", _row(section.columns)]
        lines.append("|---" * section.n_names + "|---:" * (len(section.columns) - section.n_names) + "|")
        lines += map(_row, section.rows)
        for line in section.lines:
            lines += ["", _escaped(line)]
        for title, text in section.examples:
            # Indented code ends nowhere but at a line that is not indented, whatever backticks there are in it.
            lines += ["", f"{_escaped(title)}:", "", *(f"    {line}" for line in _shown_lines(text))]
    return "\n".join(lines) + "\n"


def as_json(values: Any) -> str:
    """Plain values as JSON; numbers that it does not have (nan, infinity) are null."""
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    text = "".join(f"\\{char}" if char in "\\`*[]<>|#" else char for char in text)
    return " ".join(text.split())


def _shown_lines(text: str) -> list[str]:
    """Lines without what would move the cursor of a terminal."""
    return ["".join(char if char.isprintable() else "\ufffd" for char in line) for line in text.split("\n")]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


SHORTEST_SHOWN, LONGEST_SHOWN = 20, 400  # characters of a copy or a repeat


def quality_section(models: Sequence[tuple[str, str, Quality]], text: str) -> Section:
    """Args:
    models: name, what computed it, and what it made of the text.
    text: what that was.
    """
    first = models[0][2]
    rows = [
        [
            name, form, f"{found.loss:.4f}", f"{found.perplexity:.3f}", f"{found.bits_per_byte:.4f}",
            f"{found.accuracy:.1%}", f"{found.seconds:.1f}", f"{found.tokens_per_second:,.0f}",
        ]
        for name, form, found in models
    ]  # fmt: skip
    columns = ["model", "computed by", "loss", "perplexity", "bits per byte", "top-1", "seconds", "tokens/s"]
    lines = [f"{counted(first.tokens, 'token')} ({counted(first.n_bytes, 'byte')}) of {text}"]
    if len(models) > 1:
        bits = [found.bits_per_byte for _, _, found in models]
        lines.append(f"Between the lowest and the highest lie {max(bits) - min(bits):.1e} bits per byte.")
    return Section("How well the models predict the text", columns, rows, lines, n_names=2)


def quantization_section(candidates: Sequence[Candidate], sentence: str) -> Section:
    """Args:
    candidates: F32 first.
    sentence: which one to take.
    """
    exact = candidates[0].bits_per_byte
    rows = [
        [
            item.quant_type, f"{item.n_bytes / 1e6:.2f} MB", f"{item.bits_per_byte:.4f}",
            _difference(item.bits_per_byte / exact - 1),
            f"{item.fidelity.kl_mean:.1e}", f"{item.fidelity.kl_99:.1e}",
            f"{item.fidelity.agreement:.2%}", f"{item.speed:,.0f}",
        ]
        for item in candidates
    ]  # fmt: skip
    columns = ["type", "size", "bits per byte", "to F32", "KL, mean", "KL, 99 %", "same top-1", "tokens/s"]
    notes = [f"Note: {item.note}." for item in candidates if item.note]
    return Section("What quantization costs", columns, rows, [sentence, *notes])


def _difference(share: float) -> str:
    """`+0.14%`, and never `-0.00%`."""
    return f"{round(share, 4) + 0.0:+.2%}"


def samples_section(name: str, written: Diversity, human: Diversity, copies: Sequence[Sequence[Copies]]) -> Section:
    """Args:
    name: the model that wrote.
    copies: of its texts, and of the human ones; empty if the training text is not known.
    """
    titles = [name, "held-out text"]
    columns = ["written by", "repeated 4-grams", "longest repeat", "distinct-1", "distinct-2", "distinct-3"]
    rows = [
        [
            title,
            f"{item.repeated:.1%}",
            counted(len(item.longest_repeat), "character"),
            *map("{:.3f}".format, item.distinct),
        ]
        for title, item in zip(titles, (written, human), strict=True)
    ]
    examples = []
    lines = []
    if copies:
        columns += ["copied", "longest copy"]
        for row, found in zip(rows, copies, strict=True):
            share = share_copied(found)
            row += ["–" if share is None else f"{share:.1%}", counted(len(longest_copy(found)), "character")]
        lines.append(f"Copied: the share of runs of {RUN} characters that stand verbatim in the training text.")
        if longest := longest_copy(copies[0]):
            examples.append(("The longest copy in what the model wrote", longest[:LONGEST_SHOWN]))
    else:
        lines.append("The training text is not known; --dataset_path names it, to look for copies of it.")
    if len(written.longest_repeat) >= SHORTEST_SHOWN:
        examples.append(("Its longest repeat", written.longest_repeat[:LONGEST_SHOWN]))
    return Section("What the model writes", columns, rows, lines, examples)


def share_copied(copies: Sequence[Copies]) -> float | None:
    """Of the runs of all these texts; None if no text is long enough to have one."""
    n_runs = sum(item.n_runs for item in copies)
    return sum(item.n_copied for item in copies) / n_runs if n_runs else None


def longest_copy(copies: Sequence[Copies]) -> str:
    """Of all these texts."""
    return max((item.longest for item in copies), key=len, default="")


def judge_section(judge: str, graded: Sequence[tuple[str, Sequence[Grades]]]) -> Section:
    """Args:
    judge: who graded.
    graded: name → the grades of texts, some of which are missing.
    """
    columns = ["written by", *QUALITIES, "age", "grades read"]
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
    lines = ["Grades from 1 to 10, in the mean; the age that was guessed most often, in years."]
    lines += [f"{problem[:1].upper()}{problem[1:]}" for problem in list(problems)[:3]]
    return Section(f"Graded by {judge}", columns, rows, lines)


def mean_grade(grades: Sequence[Grades], quality: str) -> float | None:
    """Of the grades that could be read; None if none could."""
    found = [value for item in grades if (value := getattr(item, quality)) is not None]
    return mean(found) if found else None
