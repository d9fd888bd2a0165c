"""Byte-level BPE: pieces of words, learned from a text, to token ids and back (Sennrich et al. 2016, GPT-2).

A text is cut into words, numbers, punctuation and white space, each piece is spelled in bytes, and the learned merges
join bytes to tokens. As all bytes are tokens, nothing is ever unknown (but see RARE). llama.cpp reads such a
vocabulary as `gpt2` with a pre-tokenizer of its own (pre_tokenizers.py) and gives the same ids.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterable, Set
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.tokenizer.added_tokens import TAKEN_FOR_CONTROL, Added, read_added
from custom_llm.tokenizer.base import END_OF_TEXT, Recipe
from custom_llm.tokenizer.cut import rechunk, split
from custom_llm.tokenizer.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer, recognize

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

SMALLEST_VOCABULARY = 257
LONGEST_WORD = 256  # characters; training takes the square of a word's length in time, so longer ones are cut in it
CHUNK = 1 << 16  # characters encoded as one; each costs some 100 bytes of memory until its batch is over
CHUNKS_PER_CORE = 4  # in a batch
SAMPLE_PART = 1 << 16  # characters
SAMPLE_PARTS = 256  # 16 million characters, of which merges are learned; more give hardly other ones
# Bytes of characters that hardly any text has, with the first and the last of those characters: from U+40000 on next
# to nothing is assigned, and the others steered teletypes. Vocabularies that were learned from a text without
# (StarCoder's, SmolLM's) lack one or the other; such characters are then unknown.
RARE = {0xF0 + i: (i << 18, min((i + 1 << 18) - 1, 0x10FFFF)) for i in (1, 2, 3, 4)}
RARE |= {byte: (byte, byte) for byte in range(ord(" ")) if not chr(byte).isspace() or byte >= 0x1C}
NOT_IN_UTF_8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


class BPETokenizer:
    """`<|endoftext|>` as token 0, the 256 bytes, and what the merges make of them.

    >>> tokenizer = BPETokenizer.train(["newer lower wider"] * 9, 259)
    >>> [tokenizer.tokens[i] for i in tokenizer.encode("lower<|endoftext|>")]
    ['l', 'o', 'wer', '<|endoftext|>']
    """

    kind = "bpe"
    begin_of_text_id = None

    def __init__(
        self, tokens: list[str], merges: list[tuple[str, str]], added: dict[int, Added] | None = None,
        pre: PreTokenizer = PRE_TOKENIZERS["gpt-2"], end_of_text: str = END_OF_TEXT,
    ) -> None:  # fmt: skip
        """A vocabulary; ValueError where it makes no byte-level BPE that llama.cpp reads alike.

        Args:
            tokens: every token by id, in GPT-2's alphabet of bytes; the added ones as they are. Those with other
                letters are never read.
            merges: pairs of tokens that become one token, the first learned first.
            added: id → token, of those that are read before the text is cut; by default only `end_of_text`.
        """
        if added is None:
            added = {i: Added(token, True) for i, token in enumerate(tokens) if token == end_of_text}
        from tokenizers import AddedToken, Tokenizer, decoders, models

        _check(tokens, merges, added)
        ends = [i for i, token in added.items() if token == Added(end_of_text, True)]
        if not ends:
            raise ValueError(f"{end_of_text!r}, which should end its documents, is not among its special tokens")
        self.spelled_tokens = tokens
        self.merges = merges
        self.added = added
        self.pre = pre
        self.vocab_size = len(tokens)
        self.end_of_text = self.separator = end_of_text
        self.end_of_text_id = ends[0]
        self.unused = {i for i, token in enumerate(tokens) if i not in added and not BYTE_OF_LETTER.keys() >= {*token}}
        self.bytes = [
            token.encode() if i in added or i in self.unused else unspell(token) for i, token in enumerate(tokens)
        ]
        unknown = [ends for byte, ends in RARE.items() if BYTE_LETTERS[byte] not in tokens]
        ranges = "".join(f"{chr(first)}-{chr(last)}" for first, last in unknown)
        self._unknown = re.compile(f"[{ranges}]") if unknown else None
        vocabulary = {token: i for i, token in enumerate(tokens)}
        self._hf = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre.ignore_merges))
        self._hf.pre_tokenizer = pre.build()
        self._hf.decoder = decoders.ByteLevel()
        self._hf.add_tokens([AddedToken(i.content, special=i.special, normalized=False) for i in added.values()])

    @classmethod
    def recipe(cls, vocab_size: int) -> Recipe:
        """Up to `vocab_size` tokens, learned from a sample of the text."""

        def make(pieces: Iterable[str]) -> BPETokenizer:
            try:
                return cls.train(sample(rechunk(pieces, SAMPLE_PART), SAMPLE_PARTS), vocab_size)
            except ValueError as error:
                raise UserError(f"--vocab_size {vocab_size}: {error}") from None

        return Recipe(f"{cls.kind} {vocab_size}", make)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
        """Up to `vocab_size` tokens (fewer, if nothing is left to merge) that suit `texts`; ValueError below 257."""
        if vocab_size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"vocab_size: {vocab_size} is not at least {SMALLEST_VOCABULARY}, the 256 bytes and {END_OF_TEXT}"
            )
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        hf = Tokenizer(models.BPE())
        cut, spell = PRE_TOKENIZERS["gpt-2"].build()
        shorten = pre_tokenizers.Split(Regex(rf"(?m:.){{1,{LONGEST_WORD}}}"), behavior="isolated")
        hf.pre_tokenizer = pre_tokenizers.Sequence([cut, shorten, spell])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        documents = (document for text in texts for document in text.split(END_OF_TEXT))
        hf.train_from_iterator(chain.from_iterable(split(document, CHUNK) for document in documents), trainer)
        hf.pre_tokenizer = PRE_TOKENIZERS["gpt-2"].build()
        return cls.from_json(json.loads(hf.to_str()))

    def encode(self, text: str, continued: bool = False) -> np.ndarray:
        """The ids of `text`, int32 of shape (n,), on all cores; what is `unknown` is left out."""
        chunks = split(self._readable(text), CHUNK)
        parts = [np.zeros(0, np.int32)]
        while batch := list(islice(chunks, CHUNKS_PER_CORE * (os.cpu_count() or 1))):
            parts += [np.array(found.ids, np.int32) for found in self._hf.encode_batch_fast(batch)]
        return np.concatenate(parts)

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that cannot be encoded: halves of surrogate pairs, and what lacks a byte."""
        return sorted(set(text) - set(self._readable(text)))

    def spell(self, ids: Iterable[int]) -> bytes:
        """The text of `ids` in UTF-8; maybe it begins or ends in the middle of a character."""
        return b"".join([self.bytes[int(i)] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; U+FFFD where they begin or end in the middle of a character."""
        return self.spell(ids).decode("utf-8", "replace")

    @property
    def tokens(self) -> list[str]:
        """The text of every token, by id; U+FFFD for a part of a character."""
        return [token.decode("utf-8", "replace") for token in self.bytes]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "json": self.to_json(), "end_of_text": self.end_of_text}

    def to_json(self) -> str:
        """The tokenizer.json of Hugging Face's `tokenizers`."""
        return self._hf.to_str(pretty=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        if not isinstance(values["json"], str):
            raise ValueError("json must be a text")
        return cls.from_json(json.loads(values["json"]), values.get("end_of_text", END_OF_TEXT))

    @classmethod
    def from_json(cls, content: dict[str, Any], end_of_text: str = END_OF_TEXT) -> Self:
        """The tokenizer of a parsed tokenizer.json that neither changes a text before it is cut nor adds to its ids.

        ValueError where it is damaged, or no byte-level BPE that llama.cpp reads alike.
        """
        try:
            if content["normalizer"] is not None or content["post_processor"] is not None:
                raise ValueError("it changes the text, or adds tokens to it")
            model = content["model"]
            check_model(model)
            pre = recognize(content["pre_tokenizer"], bool(model.get("ignore_merges")))
            added = read_added(content["added_tokens"])
            tokens = dict(model["vocab"])
            for i, token in added.items():
                if tokens.setdefault(token.content, i) != i:
                    raise ValueError(f"its token {token.content!r} has two ids")
            by_id = {i: token for token, i in tokens.items()}
            if len(by_id) != len(tokens) or any(type(i) is not int for i in by_id):
                raise ValueError("its ids are not one number for each token")
            check_ids(by_id.keys())
            # Old files have the two tokens of a merge in one text, with a space between.
            merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
            return cls([by_id[i] for i in range(len(by_id))], merges, added, pre, end_of_text)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a tokenizer.json: {error!r}") from None

    def _readable(self, text: str) -> str:
        """`text` without halves of surrogate pairs, which no UTF-8 and so no byte stands for, and what lacks a byte."""
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "ignore").decode()
        return text if self._unknown is None else self._unknown.sub("", text)


class PretrainedTokenizer(BPETokenizer):
    """The byte-level BPE of another model (pretrained.py)."""

    kind = "pretrained"


def sample(items: Iterable[T], n: int) -> list[T]:
    """`n` of the items, each with the same chance, in order; all of them if there are no more (Vitter 1985, R)."""
    generator, kept = random.Random(0), []
    for i, item in enumerate(items):
        if i < n:
            kept.append((i, item))
        elif (place := generator.randrange(i + 1)) < n:
            kept[place] = (i, item)
    return [item for _, item in sorted(kept)]


def check_model(model: dict[str, Any]) -> None:
    """Raise ValueError unless the model of a parsed tokenizer.json may be a byte-level BPE."""
    kind = model.get("type", "BPE")  # not there in the oldest files
    unknown = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout")
    unfit = [name for name in unknown if model.get(name)]
    if kind != "BPE" or unfit:
        raise ValueError(f"its model is {kind}{' with '.join(['', *unfit])}, not a byte-level BPE")


def check_ids(ids: Set[int]) -> None:
    """Raise ValueError where some number below the largest id is none."""
    if ids and max(ids) >= len(ids):
        raise ValueError(f"its ids have holes: {max(ids) + 1} rows, but no token {min({*range(len(ids))} - ids)}")


def unspell(token: str) -> bytes:
    """The bytes of a token in GPT-2's alphabet. Raises ValueError for other letters.

    >>> unspell("ĠÃ©")
    b' \\xc3\\xa9'
    """
    try:
        return bytes([BYTE_OF_LETTER[letter] for letter in token])
    except KeyError as error:
        raise ValueError(f"{error} is no letter of the alphabet of bytes") from None


def _check(tokens: list[str], merges: list[tuple[str, str]], added: dict[int, Added]) -> None:
    """Raise ValueError unless every byte is a token, and merges make tokens of tokens.

    There may be tokens that no merge makes: what ignores merges finds them still, and for the rest they lie idle.
    """
    known = set(tokens)
    if len(known) != len(tokens):
        raise ValueError("a token is there twice")
    missing = {byte for byte, letter in enumerate(BYTE_LETTERS) if letter not in known}
    if missing := missing - NOT_IN_UTF_8 - RARE.keys():
        raise ValueError(f"{len(missing)} of the 256 bytes are no tokens, {min(missing):#04x} the first")
    for merge in merges:
        if len(merge) != 2 or not known.issuperset((*merge, "".join(merge))):
            raise ValueError(f"the merge of {merge!r} is not of tokens")
    if len(set(merges)) != len(merges):
        raise ValueError("a merge is there twice")
    for i, token in enumerate(tokens):
        if i not in added and token in TAKEN_FOR_CONTROL:
            raise ValueError(f"its token {token!r} is text, which llama.cpp takes for a control token")
        if i in added and not token.isascii() and BYTE_OF_LETTER.keys() >= {*token}:
            raise ValueError(f"its added token {token!r} is also the spelling of bytes")


# GPT-2's letter for each byte: itself where it prints, else a letter from U+0100 on.
_PRINTABLE = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
_NEXT = iter(range(256, 512))
BYTE_LETTERS = [chr(byte if byte in _PRINTABLE else next(_NEXT)) for byte in range(256)]
BYTE_OF_LETTER = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}
