"""What a model is, and what the writing of a text took, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from custom_llm.common.machine import monitor_resources, peak_memory
from custom_llm.common.text import counted

if TYPE_CHECKING:
    from custom_llm.inference.engine import Engine
    from custom_llm.inference.generation import Statistics
import textwrap
from dataclasses import dataclass

from custom_llm.common.text import clean, printable

if TYPE_CHECKING:
    from custom_llm.llamacpp import Model


def summary(statistics: Statistics, load_seconds: float) -> str:
    """For example `100 tokens, 8,123 tokens/s, first text after 0.05 s, peak memory 61 MB`."""
    count = statistics.generated_tokens
    figures = [counted(count, "token")]
    if count:
        figures.append(f"{statistics.tokens_per_second:,.0f} tokens/s")
    if statistics.first_text_seconds is not None:
        figures.append(f"first text after {load_seconds + statistics.first_text_seconds:.2f} s")
    return ", ".join([*figures, f"peak memory {peak_memory() / 1e6:,.0f} MB"])


def devices(engine: Engine) -> str:
    """For example `CPU 98 % of one core (1 thread)`, and each GPU."""
    use = monitor_resources()
    found = [f"CPU {use['process_cpu_percent']:.0f} % of one core ({counted(engine.n_threads, 'thread')})"]
    for gpu in use["gpus"]:
        found.append(f"{gpu['name']} {gpu['load_percent']:.0f} %, {gpu['memory_used'] / 1e6:,.0f} MB")
    return "; ".join(found)


def timings(statistics: Statistics, load_seconds: float) -> list[str]:
    """The figures that llama.cpp prints after a text, in its words."""
    read, written = statistics.prompt_read, statistics.generated_tokens
    reading, writing = statistics.prompt_seconds, statistics.seconds
    total = load_seconds + statistics.tokenize_seconds + reading + writing
    lines = [
        f"       load time = {1000 * load_seconds:10.2f} ms",
        f"prompt eval time = {_rate(reading, read)}",
        f"       eval time = {_rate(writing, written)}",
        f"      total time = {1000 * total:10.2f} ms / {read + written:6,} tokens",
        f"     peak memory = {peak_memory() / 1e6:10,.0f} MB",
    ]
    if statistics.prompt_tokens > read > 0:
        lines.append(f"the last {read:,} of the prompt's {statistics.prompt_tokens:,} tokens count")
    return lines


def together(several: Sequence[Statistics]) -> Statistics:
    """The sum of the counts and times of several texts; the first text of the first."""
    names = [item.name for item in fields(several[0]) if item.name != "first_text_seconds"]
    return replace(several[0], **{name: sum(getattr(one, name) for one in several) for name in names})


def _rate(seconds: float, count: int) -> str:
    line = f"{1000 * seconds:10.2f} ms / {count:6,} tokens"
    if not count or not seconds:
        return line
    return line + f" ({1000 * seconds / count:.2f} ms per token, {count / seconds:,.0f} tokens/s)"


@dataclass(frozen=True)
class Card:
    """What a person wants to know of a model before using it; texts are empty where the file does not tell."""

    name: str  # its title
    architecture: str  # llama.cpp's name for what it computes
    n_params: int  # weights
    context: int  # tokens that it reads at once
    n_vocab: int  # tokens that it knows
    quantization: str  # the type of its weights, as llama.cpp calls it
    description: str = ""  # what it is, in a sentence
    trained_on: str = ""  # the text
    training: str = ""  # how long, and how well it did, in a line
    example: str = ""  # what it wrote when it was finished
    author: str = ""
    license: str = ""


def card_of(model: Model) -> Card:
    """The card of a model that is loaded."""
    return Card(
        name=model.metadata("general.name") or clean(model.path.name),
        architecture=model.metadata("general.architecture") or "",
        n_params=model.n_params,
        context=model.block_size,
        n_vocab=model.n_vocab,
        quantization=model.quantization,
        description=model.metadata("general.description") or "",
        trained_on=model.metadata("general.dataset.0.name") or "",
        training=model.metadata("custom_llm.training") or "",
        example=model.metadata("custom_llm.example") or "",
        author=model.metadata("general.author") or "",
        license=model.metadata("general.license") or "",
    )


SHOWN = 300  # characters of each text
INDENT = " " * 14


def card_lines(card: Card, columns: int) -> list[str]:
    """A card for a terminal that is `columns` wide; what the file does not tell is left out."""
    rows = {
        "model": card.name,
        "": card.description,
        "architecture": card.architecture,
        "parameters": f"{card.n_params:,}",
        "context": f"{card.context:,} tokens",
        "vocabulary": f"{card.n_vocab:,} tokens",
        "quantization": card.quantization,
        "trained on": card.trained_on,
        "training": card.training,
        "author": card.author,
        "license": card.license,
        "example": card.example,
    }
    lines, width = [], max(columns - 1, len(INDENT) + 10)
    for name, text in rows.items():
        if words := textwrap.shorten(printable(text), SHOWN, placeholder=" …"):
            lines += textwrap.wrap(words, width, initial_indent=f"{name:<{len(INDENT)}}", subsequent_indent=INDENT)
    return lines
