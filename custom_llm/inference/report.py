"""What the writing of a text took, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from custom_llm.common.machine import monitor_resources, peak_memory
from custom_llm.common.text import counted

if TYPE_CHECKING:
    from custom_llm.inference.engine import Engine
    from custom_llm.inference.generation import Statistics

if TYPE_CHECKING:
    pass


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
