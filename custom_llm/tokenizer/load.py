"""How a tokenizer comes about: by name, from the text, ready-made, or from what it said of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from custom_llm.tokenizer.base import Recipe, Tokenizer
from custom_llm.tokenizer.bpe import BPETokenizer, PretrainedTokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.pretrained import load_pretrained

LEARNED = (CharTokenizer, BPETokenizer)  # from the text, by their kinds as names: these have a `recipe`
TOKENIZERS = {tokenizer.kind: tokenizer for tokenizer in (*LEARNED, PretrainedTokenizer)}


def load_tokenizer(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described; ValueError for a description of no known kind, or a damaged one."""
    try:
        return TOKENIZERS[values["kind"]].from_dict(values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a tokenizer description: {error}") from None


def find_recipe(name: str, vocab_size: int) -> Recipe:
    """The recipe for `--tokenizer name`; UserError where that is none of ours, and no other can be had by that name."""
    for learned in LEARNED:
        if name == learned.kind:
            return learned.recipe(vocab_size)
    tokenizer, notes = load_pretrained(name)
    return recipe_of(tokenizer, [f"--tokenizer {name}: {note}" for note in notes])


def recipe_of(tokenizer: Tokenizer, notes: Sequence[str] = ()) -> Recipe:
    """The recipe for a tokenizer that is there already."""
    digest = blake2b(json.dumps(tokenizer.to_dict()).encode(), digest_size=16).hexdigest()
    return Recipe(digest, lambda pieces: tokenizer, notes)
