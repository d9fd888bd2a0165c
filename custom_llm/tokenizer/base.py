"""What every tokenizer offers.

A tokenizer travels with its model as a plain dict (`to_dict`) inside `model_config.pth`, so that whoever holds the
weights can also read and write their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

END_OF_TEXT = "<|endoftext|>"
# What ends a document, also where a chat model names the end of a turn as its end; the first that is a control token.
ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>")


class Tokenizer(Protocol):
    """What training, export and proofs ask of a tokenizer."""

    kind: str
    vocab_size: int
    bytes: list[bytes]  # what each token stands for in UTF-8, by id; of control tokens their names
    end_of_text: str  # what it reads as the end of a document: `<|endoftext|>` in all that is made from a text
    end_of_text_id: int | None  # the id of that; None where it is no token
    begin_of_text_id: int | None  # of the token that stands before each document; None where there is none
    separator: str  # what stands between two documents in a text: the end of one and the beginning of the other

    def encode(self, text: str, continued: bool = False) -> np.ndarray:
        """The ids of `text`, int32 of shape (n,); what cannot be encoded is left out.

        continued: `text` goes on where another ended, which shows in tokenizers that put a space before a text.
        """

    def unknown(self, text: str) -> list[str]:
        """The distinct characters of `text` that `encode` leaves out, in code point order."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`."""

    @property
    def tokens(self) -> list[str]:
        """The text of every token, by id."""

    def to_dict(self) -> dict[str, Any]:
        """A description in plain values, from which `load_tokenizer` makes the same tokenizer."""


@dataclass(frozen=True)
class Recipe:
    """How a tokenizer is made."""

    key: str  # differs where the same text would give another tokenizer
    make: Callable[[Iterable[str]], Tokenizer]  # pieces of the text → the tokenizer; raises UserError
    notes: Sequence[str] = ()  # what a person should know about it, a line each
