"""How a tokenizer comes about: by name, from the text, ready-made, or from what it said of itself."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from custom_llm.common.errors import UserError
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.cut import rechunk


def _load_bpe(values: dict[str, Any]) -> Tokenizer:
    from custom_llm.tokenizer import bpe

    kind = bpe.PretrainedTokenizer if values["kind"] == bpe.PretrainedTokenizer.kind else bpe.BPETokenizer
    return kind.from_dict(values)


# kind → what makes the tokenizer of a description
TOKENIZERS: dict[str, Callable[[dict[str, Any]], Tokenizer]] = {
    CharTokenizer.kind: CharTokenizer.from_dict,
    "bpe": _load_bpe,
    "pretrained": _load_bpe,
}


def load_tokenizer(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described.

    Raises:
        ValueError: a description of no known kind, or a damaged one.
    """
    try:
        return TOKENIZERS[values["kind"]](values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a tokenizer description: {error}") from None


SAMPLE_PART = 1 << 16  # characters
SAMPLE_PARTS = 256  # 16 million characters, of which merges are learnt; more give hardly other ones
T = TypeVar("T")


@dataclass(frozen=True)
class Recipe:
    """How a tokenizer is made.

    Attributes:
        key: differs where the same text would give another tokenizer.
        make: pieces of the text → the tokenizer; raises UserError.
        notes: what a person should know about it, a line each.
    """

    key: str
    make: Callable[[Iterable[str]], Tokenizer]
    notes: Sequence[str] = ()


def find_recipe(name: str, vocab_size: int) -> Recipe:
    """The recipe for `--tokenizer name`.

    Raises:
        UserError: it is neither char nor bpe, and no tokenizer can be had under that name.
    """
    if name == "char":
        return Recipe("char", CharTokenizer.from_texts)
    if name == "bpe":
        return Recipe(f"bpe {vocab_size}", lambda pieces: _learn(pieces, vocab_size))
    from custom_llm.tokenizer.pretrained import load_pretrained

    tokenizer, notes = load_pretrained(name)
    digest = blake2b(json.dumps(tokenizer.to_dict()).encode(), digest_size=16).hexdigest()
    return Recipe(digest, lambda pieces: tokenizer, [f"--tokenizer {name}: {note}" for note in notes])


def _learn(pieces: Iterable[str], vocab_size: int) -> Tokenizer:
    from custom_llm.tokenizer.bpe import BPETokenizer

    try:
        return BPETokenizer.train(sample(rechunk(pieces, SAMPLE_PART), SAMPLE_PARTS), vocab_size)
    except ValueError as error:
        raise UserError(f"--vocab_size {vocab_size}: {error}") from None


def sample(items: Iterable[T], n: int) -> list[T]:
    """`n` of the items, each with the same chance, in order; all of them if there are no more (Vitter 1985, R)."""
    generator, kept = random.Random(0), []
    for i, item in enumerate(items):
        if i < n:
            kept.append((i, item))
        elif (place := generator.randrange(i + 1)) < n:
            kept[place] = (i, item)
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])]
