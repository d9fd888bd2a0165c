"""What there is to learn from a text, said before a minute is spent on it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from custom_llm.common.steps import command, step
from custom_llm.common.text import printable
from custom_llm.data.token_file import Tokens
from custom_llm.tokenizer.base import END_OF_TEXT

LOOKED_AT = 50_000_000  # characters; counting lines takes memory
ENCODED = 1_000_000  # characters
RAREST, SCRIPTS, EXCERPT, TOKENS_SHOWN = 12, 6, 300, 48
PLAIN, REVERSED = "\x1b[0m", "\x1b[7m"  # of a terminal
NO_SCRIPT = ("Zyyy", "Zinh", "Zzzz")  # Unicode's names for common, inherited and unknown
SCARCE = 5  # times a token should occur to be learned
REPEATED = 0.3  # share of lines that stand elsewhere, too, from which on a model memorises
FEW_TOKENS = 0.1  # tokens for each parameter, below which a smaller model learns more of them
# UTF-8 that was read as Latin-1 or Windows-1252: é as Ã©, ’ as â€™.
MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd")


def inspect(text: str, tokens: Tokens, n_parameters: int, block_size: int, in_colour: bool = False) -> Iterator[str]:
    """Lines for a person about a text of at least one character, and the model that is to learn it.

    text: documents with `<|endoftext|>` between them; of a very long text the first LOOKED_AT characters.
    """
    documents = [part for part in text.split(END_OF_TEXT) if part.strip()]
    counts = Counter("".join(documents))
    n_characters, n_bytes, n_tokens = counts.total(), len(text.encode()), len(tokens.ids)
    lines = Counter(line.strip() for line in text.split("\n") if line.strip())
    repeated = 1 - len(lines) / max(1, lines.total())
    if len(text) >= LOOKED_AT:
        yield f"  (the first {LOOKED_AT:,} characters; tokens are those of all)"
    yield f"  documents   {len(documents):,}, of {n_characters // max(1, len(documents)):,} characters on average"
    yield f"  characters  {n_characters:,} ({n_bytes:,} bytes in UTF-8), {len(counts):,} different ones"
    rarest = sorted(counts.items(), key=lambda item: item[1])[:RAREST]
    yield f"  rarest      {', '.join(f'{char!r} {count}×' for char, count in rarest)}"
    yield f"  scripts     {_scripts(counts)}"
    yield f"  lines       {lines.total():,}, {repeated:.0%} of which stand elsewhere, too"
    part = text[:ENCODED].replace(END_OF_TEXT, tokens.tokenizer.separator)
    size = len(part.encode()) / max(1, len(tokens.tokenizer.encode(part)))  # bytes per token
    yield f"  tokens      {n_tokens:,} of {size:.2f} bytes, {n_tokens / block_size:,.1f} windows of {block_size}"
    occurrences, vocab_size = _occurrences(tokens), tokens.tokenizer.vocab_size
    yield f"  vocabulary  {vocab_size:,} tokens, {np.count_nonzero(occurrences):,} of which occur"
    yield f"  model       {n_parameters:,} parameters, {n_tokens / n_parameters:.2f} tokens for each"
    yield "  the model will see:"
    yield from ("    " + printable(line[:100]) for line in text[:EXCERPT].split("\n")[:8])
    yield "  as tokens:"
    yield from ("    " + line for line in _picture(tokens, in_colour))
    if damaged := counts["\ufffd"] + len(MOJIBAKE.findall(text)):
        yield (
            f"warning: {damaged} characters look damaged (such as Ã© for é); was the text saved in another encoding?"
        )
    copies = max(Counter(document.strip() for document in documents).values(), default=0)
    if copies > 1 and copies > len(documents) / 2:
        yield f"warning: one document stands {copies} times among {len(documents)}; the model will memorise it"
    elif repeated > REPEATED:
        yield f"warning: {repeated:.0%} of the lines are repetitions; the model will memorise them"
    scarce = np.count_nonzero(occurrences < SCARCE)
    if scarce > vocab_size / 4:
        yield (
            f"warning: {scarce:,} of {vocab_size:,} tokens occur less than {SCARCE} times; a model hardly learns "
            "those, and each costs a row of two tables"
        )
    if n_tokens < FEW_TOKENS * n_parameters:
        yield (
            f"warning: {n_parameters / n_tokens:,.0f} parameters for each token; a smaller model "
            f"({command('llm_model', '--preset', 'auto')} chooses one) learns the language instead of the text"
        )
    if n_tokens < 20 * block_size:
        yield (
            f"warning: there are few windows of {block_size} tokens in it; give more text, or a smaller one "
            f"({step('llm_model')} --block_size)"
        )


def _occurrences(tokens: Tokens) -> np.ndarray:
    """How often each token occurs among the first LOOKED_AT, int64 of shape (vocab_size,)."""
    ids = tokens.ids[:LOOKED_AT]
    parts = (ids[start : start + ENCODED] for start in range(0, len(ids), ENCODED))  # bincount makes int64 of them
    return sum(np.bincount(part, minlength=tokens.tokenizer.vocab_size) for part in parts)


def _picture(tokens: Tokens, in_colour: bool) -> list[str]:
    """The first tokens of a text, told apart by colour or by a stroke between them; ⏎ is the end of a line."""
    parts, end = [], ""
    for place, i in enumerate(tokens.ids[1 : 1 + TOKENS_SHOWN].tolist()):
        shown = printable(tokens.tokenizer.decode([i]).replace("\n", "⏎\n").replace("\t", "→"))
        token, breaks = shown.rstrip("\n"), "\n" * shown.endswith("\n")
        token = token.replace("\n", "")
        parts.append(end + (f"{REVERSED if place % 2 else PLAIN}{token}{PLAIN}" if in_colour else token) + breaks)
        end = "" if in_colour or breaks else "|"
    return "".join(parts).rstrip("\n").split("\n")


def _scripts(counts: Counter[str]) -> str:
    """The scripts of the letters, without those of none (ℂ, µ) or of several (ー)."""
    from fontTools.unicodedata import script, script_name

    found: Counter[str] = Counter()
    for char, count in counts.items():
        if char.isalpha() and (code := script(char)) not in NO_SCRIPT:
            found[script_name(code)] += count
    shares = (f"{name} {count / found.total():.1%}" for name, count in found.most_common(SCRIPTS))
    return ", ".join(shares) or "no letters"
