"""What a GGUF file says about itself."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from custom_llm.common.text import clean, printable

if TYPE_CHECKING:
    from custom_llm.llamacpp import Model


@dataclass(frozen=True)
class Card:
    """What a person wants to know of a model before using it; texts are empty where the file does not tell.

    Attributes:
        name: its title.
        architecture: llama.cpp's name for what it computes.
        n_params: weights.
        context: tokens that it reads at once.
        n_vocab: tokens that it knows.
        quantization: the type of its weights, as llama.cpp calls it.
        description: what it is, in a sentence.
        trained_on: the text.
        training: how long, and how well it did, in a line.
        example: what it wrote when it was finished.
        author, license: of the model.
    """

    name: str
    architecture: str
    n_params: int
    context: int
    n_vocab: int
    quantization: str
    description: str = ""
    trained_on: str = ""
    training: str = ""
    example: str = ""
    author: str = ""
    license: str = ""


# field → where it stands in the file
_TEXTS = {
    "description": "general.description",
    "trained_on": "general.dataset.0.name",
    "training": "custom_llm.training",
    "example": "custom_llm.example",
    "author": "general.author",
    "license": "general.license",
}


def card_of(model: Model) -> Card:
    """The card of a model that is loaded."""
    return Card(
        name=model.metadata("general.name") or clean(model.path.name),
        architecture=model.metadata("general.architecture") or "",
        n_params=model.n_params,
        context=model.block_size,
        n_vocab=model.n_vocab,
        quantization=model.quantization,
        **{field: model.metadata(key) or "" for field, key in _TEXTS.items()},
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
    lines = []
    for name, text in rows.items():
        words = textwrap.shorten(printable(text), SHOWN, placeholder=" …")
        if words:
            width = max(columns - 1, len(INDENT) + 10)
            lines += textwrap.wrap(words, width, initial_indent=f"{name:<{len(INDENT)}}", subsequent_indent=INDENT)
    return lines
