"""What there is to learn from a text, said before a minute is spent on it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from custom_llm.data.tokenizer import END_OF_TEXT

RAREST, SCRIPTS, EXCERPT = 12, 6, 300
SCARCE = 5  # times a character should occur to be learnt
REPEATED = 0.3  # share of lines that stand elsewhere, too, from which on a model learns by heart
FEW_TOKENS = 1.0  # tokens for each parameter below which a model learns by heart
# UTF-8 that was read as Latin-1 or Windows-1252: é as Ã©, ’ as â€™.
MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd")


def inspect(text: str, n_parameters: int, block_size: int) -> Iterator[str]:
    """Lines for a person about a text of at least one character.

    Args:
        text: documents with `<|endoftext|>` between them.
        n_parameters, block_size: of the model that is to learn it.
    """
    documents = [part for part in text.split(END_OF_TEXT) if part.strip()]
    counts = Counter("".join(documents))
    n_characters, n_bytes = counts.total(), len(text.encode())
    lines = Counter(line.strip() for line in text.split("\n") if line.strip())
    repeated = 1 - len(lines) / max(1, lines.total())
    yield f"  documents   {len(documents):,}, of {n_characters // max(1, len(documents)):,} characters in the mean"
    yield f"  characters  {n_characters:,} ({n_bytes:,} bytes in UTF-8)"
    yield f"  vocabulary  {len(counts):,} characters; the rarest: {_rarest(counts)}"
    yield f"  scripts     {_scripts(counts)}"
    yield f"  lines       {lines.total():,}, {repeated:.0%} of which stand elsewhere, too"
    yield f"  windows     {n_characters / block_size:,.1f} of {block_size} tokens"
    yield f"  model       {n_parameters:,} parameters, {n_characters / n_parameters:.2f} tokens for each"
    yield "  the model will see:"
    yield from ("    " + line[:100] for line in text[:EXCERPT].split("\n")[:8])
    for warning in _warnings(text, documents, counts, repeated, n_parameters, block_size):
        yield f"warning: {warning}"


def _rarest(counts: Counter[str]) -> str:
    return ", ".join(f"{char!r} {count}×" for char, count in sorted(counts.items(), key=lambda item: item[1])[:RAREST])


def _scripts(counts: Counter[str]) -> str:
    """The scripts of the letters by the first word of their Unicode names."""
    found: Counter[str] = Counter()
    for char, count in counts.items():
        if char.isalpha():
            found[unicodedata.name(char, "OTHER").split()[0].split("-")[0].title()] += count
    shares = (f"{name} {count / found.total():.1%}" for name, count in found.most_common(SCRIPTS))
    return ", ".join(shares) or "no letters"


def _warnings(
    text: str, documents: Sequence[str], counts: Counter[str], repeated: float, n_parameters: int, block_size: int
) -> Iterator[str]:
    scarce = [char for char, count in counts.items() if count < SCARCE]
    if len(scarce) > len(counts) / 4:
        yield (
            f"{len(scarce)} of {len(counts)} characters occur less than {SCARCE} times; a model hardly learns those, "
            "and each costs a row of two tables"
        )
    damaged = counts["\ufffd"] + len(MOJIBAKE.findall(text))
    if damaged:
        yield f"{damaged} characters look damaged (such as Ã© for é); was the text saved in another encoding?"
    copies = max(Counter(document.strip() for document in documents).values(), default=0)
    if copies > 1 and copies > len(documents) / 2:
        yield f"one document stands {copies} times among {len(documents)}; the model will learn it by heart"
    elif repeated > REPEATED:
        yield f"{repeated:.0%} of the lines are repetitions; the model will learn them by heart"
    if counts.total() < FEW_TOKENS * n_parameters:
        yield (
            f"{n_parameters / max(1, counts.total()):,.0f} parameters for each token; a smaller model "
            "(llm_model.py --n_embd, --n_layer) learns the language instead of the text"
        )
    if counts.total() < 20 * block_size:
        yield f"there are few windows of {block_size} tokens in it; give more text or a smaller --block_size"
