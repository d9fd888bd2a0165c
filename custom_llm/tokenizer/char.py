"""A token for each character."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from custom_llm.common.text import has_half_pair
from custom_llm.tokenizer.base import END_OF_TEXT, Recipe

LARGEST_CODE_POINT = 0x10FFFF


class CharTokenizer:
    """One token per Unicode character, in code point order, and optionally `<|endoftext|>` as the last token.

    >>> tokenizer = CharTokenizer.from_text("hello")
    >>> tokenizer.chars, tokenizer.vocab_size
    ('ehlo', 5)
    >>> tokenizer.encode("hole<|endoftext|>").tolist()
    [1, 3, 2, 0, 4]
    """

    kind = "char"
    end_of_text = separator = END_OF_TEXT
    begin_of_text_id = None

    def __init__(self, chars: str, end_of_text: bool = True) -> None:
        """The vocabulary of the distinct `chars`; a character's place is its id.

        end_of_text: whether `<|endoftext|>` is a token (its id is len(chars)); if not, it is 13 characters.
        """
        if len(set(chars)) != len(chars):
            raise ValueError("a character vocabulary with a character twice")
        self.chars = chars
        self.vocab_size = len(chars) + end_of_text
        self.end_of_text_id = len(chars) if end_of_text else None
        # One slot per code point, and one past the last for <|endoftext|>; -1 is "not in the vocabulary".
        self._ids = np.full(LARGEST_CODE_POINT + 2, -1, dtype=np.int32)
        self._ids[code_points(chars)] = np.arange(len(chars))
        if end_of_text:
            self._ids[-1] = self.end_of_text_id

    @classmethod
    def recipe(cls, vocab_size: int) -> Recipe:
        """The vocabulary of all characters, however many there are."""
        return Recipe(cls.kind, cls.from_texts)

    @classmethod
    def from_text(cls, text: str, end_of_text: bool = True) -> CharTokenizer:
        """The vocabulary of exactly this text (a literal `<|endoftext|>` counts as the token)."""
        return cls.from_texts([text], end_of_text)

    @classmethod
    def from_texts(cls, texts: Iterable[str], end_of_text: bool = True) -> CharTokenizer:
        """The vocabulary of all these texts, which are looked at one after the other."""
        seen = np.zeros(LARGEST_CODE_POINT + 1, dtype=bool)
        for text in texts:
            for part in text.split(END_OF_TEXT) if end_of_text else [text]:
                points = code_points(part)
                if not seen.take(points).all():  # much quicker than to mark them again
                    seen[points] = True
        return cls("".join(map(chr, seen.nonzero()[0])), end_of_text)

    def encode(self, text: str, continued: bool = False) -> np.ndarray:
        """The ids of `text`, int32 of shape (n,); characters outside the vocabulary are left out."""
        ids = self._ids.take(self._code_points(text))
        return ids if ids.min(initial=0) >= 0 else ids[ids >= 0]

    def unknown(self, text: str) -> list[str]:
        """The distinct characters of `text` that are not in the vocabulary, in code point order."""
        points = np.unique(self._code_points(text))
        return [chr(point) for point in points[self._ids[points] < 0]]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`."""
        tokens = self.tokens
        return "".join(tokens[int(i)] for i in ids)

    @property
    def bytes(self) -> list[bytes]:
        """What each token stands for, by id."""
        return [token.encode() for token in self.tokens]

    @property
    def tokens(self) -> list[str]:
        """The text of every token, by id."""
        return [*self.chars, *([END_OF_TEXT] if self.end_of_text_id is not None else [])]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "chars": self.chars, "end_of_text": self.end_of_text_id is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CharTokenizer:
        chars, end_of_text = values["chars"], values["end_of_text"]
        if not isinstance(chars, str) or not isinstance(end_of_text, bool):
            raise ValueError("chars must be a text, end_of_text True or False")
        if has_half_pair(chars):
            raise ValueError("half of a surrogate pair among the characters")
        return cls(chars, end_of_text)

    def _code_points(self, text: str) -> np.ndarray:
        if self.end_of_text_id is None or END_OF_TEXT not in text:
            return code_points(text)
        pieces = []
        for part in text.split(END_OF_TEXT):
            pieces += [code_points(part), [LARGEST_CODE_POINT + 1]]
        return np.concatenate(pieces[:-1]).astype(np.uint32)


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of `text`, uint32 of shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
