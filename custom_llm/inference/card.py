"""What a GGUF file says about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
import textwrap
from dataclasses import dataclass

from custom_llm.common.text import clean, printable

if TYPE_CHECKING:
    from custom_llm.llamacpp import Model


@dataclass(frozen=True)
class Card:
    """What a person wants to know of a model before using it; texts are empty where the file does not tell."""

    name: str  # its title
    architecture: str  # llama.cpp's name for what it computes
    n_params: int  # weights
    context: int  # tokens that it reads at once
    n_vocab: int  # tokens that it knows
    quantization: str  # the type of its weights, as llama.cpp calls it
    adapters: str = ""  # those applied to it, each with its strength where that is not 1
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
        adapters=", ".join(clean(path.name) + f" × {scale:g}" * (scale != 1) for path, scale in model.loras),
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
        "adapter": card.adapters,
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
