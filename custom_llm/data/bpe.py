"""Byte-level BPE: pieces of words, learned from a text, to token ids and back (Sennrich et al. 2016, GPT-2).

A text is cut as GPT-2 cuts it (words, numbers, punctuation, white space), each piece is spelled in bytes, and the
learned merges join bytes to tokens. As all 256 bytes are tokens, nothing is ever unknown. llama.cpp reads such a
vocabulary as `gpt2` with the pre-tokenizer `gpt-2` and gives the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from custom_llm.data.chunks import split
from custom_llm.data.tokenizer import END_OF_TEXT

if TYPE_CHECKING:
    import tokenizers

SMALLEST_VOCABULARY = 257
# Letters and digits of Unicode 16, which are neither in llama.cpp's tables of Unicode 15: it cuts around them as
# around punctuation, and the rule that is built into `tokenizers` does not.
NEW_LETTERS = (
    r"\x{1C89}-\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D40}-\x{10D65}\x{10D6F}-\x{10D85}"
    r"\x{10EC2}-\x{10EC4}\x{11380}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{116D0}-\x{116E3}\x{11BC0}-\x{11BE0}"
    r"\x{11BF0}-\x{11BF9}\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16130}-\x{16139}\x{16D40}-\x{16D6C}"
    r"\x{16D70}-\x{16D79}\x{18CFF}\x{1CCF0}-\x{1CCF9}\x{1E5D0}-\x{1E5ED}\x{1E5F0}-\x{1E5FA}"
)
LETTER, NUMBER = rf"[\p{{L}}&&[^{NEW_LETTERS}]]", rf"[\p{{N}}&&[^{NEW_LETTERS}]]"
OTHER = rf"(?:[^\s\p{{L}}\p{{N}}]|[{NEW_LETTERS}])"
PIECES = rf"'s|'t|'re|'ve|'m|'ll|'d| ?{LETTER}+| ?{NUMBER}+| ?{OTHER}+|\s+(?!\S)|\s+"
LONGEST_WORD = 256  # characters; training takes the square of a word's length in time, so longer ones are cut in it
CHUNK = 1 << 16  # characters encoded in one call; each costs some 100 bytes of memory until the call is over


class BPETokenizer:
    """`<|endoftext|>` as token 0, the 256 bytes, and what the merges make of them.

    >>> tokenizer = BPETokenizer.train(["newer lower wider"] * 9, 259)
    >>> [tokenizer.tokens[i] for i in tokenizer.encode("lower<|endoftext|>")]
    ['l', 'o', 'wer', '<|endoftext|>']
    """

    kind = "bpe"
    end_of_text = END_OF_TEXT

    def __init__(self, tokens: list[str], merges: list[tuple[str, str]]) -> None:
        """Args:
        tokens: every token by id, in GPT-2's alphabet of bytes; one of them is `<|endoftext|>`.
        merges: pairs of tokens that become one token, the first learned first.

        Raises:
            ValueError: these do not make a byte-level BPE.
        """
        _check(tokens, merges)
        self.spelled_tokens = tokens
        self.merges = merges
        self.vocab_size = len(tokens)
        self.end_of_text_id = tokens.index(END_OF_TEXT)
        self._bytes = [END_OF_TEXT.encode() if token == END_OF_TEXT else unspell(token) for token in tokens]
        self._hf = _hugging_face(tokens, merges)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
        """The vocabulary of up to `vocab_size` tokens (fewer, if nothing is left to merge) that suits `texts`.

        Raises:
            ValueError: vocab_size is too small for all bytes.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"vocab_size: {vocab_size} is not at least {SMALLEST_VOCABULARY}, the 256 bytes and {END_OF_TEXT}"
            )
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        hf = Tokenizer(models.BPE())
        cut, spell = _pre_tokenizer()
        shorten = pre_tokenizers.Split(Regex(rf"(?m:.){{1,{LONGEST_WORD}}}"), behavior="isolated")
        hf.pre_tokenizer = pre_tokenizers.Sequence([cut, shorten, spell])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        documents = (document for text in texts for document in text.split(END_OF_TEXT))
        hf.train_from_iterator(chain.from_iterable(split(document, CHUNK) for document in documents), trainer)
        hf.pre_tokenizer = _pre_tokenizer()
        return cls(*_parse(json.loads(hf.to_str())))

    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, int32 of shape (n,)."""
        parts = [np.array(self._hf.encode(chunk).ids, dtype=np.int32) for chunk in split(text, CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that cannot be encoded: none."""
        return []

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; U+FFFD where they begin or end in the middle of a character."""
        return b"".join([self._bytes[int(i)] for i in ids]).decode("utf-8", "replace")

    @property
    def tokens(self) -> list[str]:
        """The text of every token, by id; U+FFFD for a part of a character."""
        return [token.decode("utf-8", "replace") for token in self._bytes]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "json": self.to_json()}

    def to_json(self) -> str:
        """The tokenizer.json of Hugging Face's `tokenizers`."""
        return self._hf.to_str(pretty=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BPETokenizer:
        if not isinstance(values["json"], str):
            raise ValueError("json must be a text")
        return cls.from_json(json.loads(values["json"]))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> BPETokenizer:
        """The tokenizer of a parsed tokenizer.json.

        Raises:
            ValueError: it is damaged, or not a byte-level BPE as this class writes it.
        """
        try:
            return cls(*_parse(content))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a tokenizer.json: {error}") from None


def is_byte_level(content: dict[str, Any]) -> bool:
    """Whether a parsed tokenizer.json cuts text as this module does."""
    return content.get("pre_tokenizer") == json.loads(_pre_tokenizer().__getstate__())


def unspell(token: str) -> bytes:
    """The bytes of a token in GPT-2's alphabet. Raises ValueError for other letters.

    >>> unspell("ĠÃ©")
    b' \\xc3\\xa9'
    """
    try:
        return bytes([BYTE_OF_LETTER[letter] for letter in token])
    except KeyError as error:
        raise ValueError(f"{error} is no letter of the alphabet of bytes") from None


def _parse(content: dict[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """The tokens by id and the merges of a parsed tokenizer.json."""
    vocabulary, merges, added = content["model"]["vocab"], content["model"]["merges"], content["added_tokens"]
    if not is_byte_level(content) or content["normalizer"] is not None:
        raise ValueError("not a byte-level BPE that cuts text as GPT-2 does")
    if [(token["content"], token["id"]) for token in added] != [(END_OF_TEXT, vocabulary[END_OF_TEXT])]:
        raise ValueError(f"its one added token is not {END_OF_TEXT}")
    if any(type(i) is not int for i in vocabulary.values()) or sorted(vocabulary.values()) != [*range(len(vocabulary))]:
        raise ValueError("its ids are not 0, 1, 2, …")
    return sorted(vocabulary, key=vocabulary.__getitem__), [(left, right) for left, right in merges]


def _check(tokens: list[str], merges: list[tuple[str, str]]) -> None:
    """Raise ValueError unless every byte is a token, and every other token what some merge gives."""
    known = set(tokens)
    if len(known) != len(tokens) or END_OF_TEXT not in known or not known.issuperset(BYTE_LETTERS):
        raise ValueError(f"a token twice, or {END_OF_TEXT} or a byte that is no token")
    for left, right in merges:
        if not known.issuperset((left, right, left + right)) or END_OF_TEXT in (left, right, left + right):
            raise ValueError(f"the merge of {left!r} and {right!r} is not of tokens")
    if known != {END_OF_TEXT, *BYTE_LETTERS, *(left + right for left, right in merges)}:
        raise ValueError("a token that no merge gives")


def _hugging_face(tokens: list[str], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    hf = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    hf.pre_tokenizer = _pre_tokenizer()
    hf.decoder = decoders.ByteLevel()
    hf.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return hf


def _pre_tokenizer() -> tokenizers.pre_tokenizers.PreTokenizer:
    """What cuts a text into pieces, as llama.cpp's `gpt-2` does, and spells them in bytes."""
    from tokenizers import Regex, pre_tokenizers

    cut = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself where it prints, else a letter from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    rest = iter(range(256, 512))
    return [chr(byte if byte in printable else next(rest)) for byte in range(256)]


BYTE_LETTERS = _byte_letters()
BYTE_OF_LETTER = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}
