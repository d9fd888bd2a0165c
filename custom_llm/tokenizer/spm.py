"""SentencePiece's BPE: characters joined to tokens, a space spelled ▁, bytes for characters that are no token.

llama.cpp has it in two forms. `llama` knows no merges: of all neighbours that make a token, those of the highest score
are joined first. From the scores merges are made here that do the same in Hugging Face's `tokenizers`, and from merges
scores. Where merges have an order that no scores can have, llama.cpp gets them as they are, as its `gpt2` with the
pre-tokenizer `sarvam-moe`, which puts no space before a text.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np

from custom_llm.common.text import without_added_spaces
from custom_llm.tokenizer.added_tokens import Added
from custom_llm.tokenizer.bpe import CHUNK, CHUNKS_PER_CORE
from custom_llm.tokenizer.cut import split
from custom_llm.tokenizer.gguf_keys import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Keys,
    is_control,
    read_first,
)

SPACE = "▁"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
MERGED, MERGED_MODEL = "sarvam-moe", "gpt2"
# Where a long text is cut: between words, and between lines. No token has such a place inside, or nothing is cut.
BETWEEN_WORDS = re.compile(r"(?<=[^\W_])(?= [^\W_])|(?<=[^\W_]\n)(?=[^\W_])")


class SentencePieceBPE:
    """The vocabulary of such a model, from its keys."""

    def __init__(self, keys: Keys) -> None:
        """ValueError where it lacks a byte, or no merges do what its scores do."""
        from tokenizers import AddedToken, Tokenizer, models, normalizers

        self.tokens, self.types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
        if missing := set(BYTES).difference(self.tokens):
            raise ValueError(f"{len(missing)} of the 256 bytes are no tokens, {min(missing)} the first")
        self.added = read_first(keys)
        self.adds_space = keys["tokenizer.ggml.model"] == "llama" and keys.get("tokenizer.ggml.add_space_prefix", True)
        self.bytes = [_bytes_of(*token) for token in zip(self.tokens, self.types, strict=True)]
        if keys["tokenizer.ggml.model"] == "llama":
            self.merges = merges_of_scores(self._joined(), keys["tokenizer.ggml.scores"])
        else:
            self.merges = [tuple(merge.split(" ")) for merge in keys["tokenizer.ggml.merges"]]
        found_first = sorted((token.content for token in self.added.values()), key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, found_first))})") if self.adds_space else None
        can_be_cut = not any(map(_has_cut, [*self._joined(), *found_first]))
        self._cut = BETWEEN_WORDS if can_be_cut else re.compile(r"(?!)")
        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        self._hf = Tokenizer(models.BPE(vocabulary, self.merges, byte_fallback=True))
        self._hf.normalizer = normalizers.Replace(" ", SPACE)
        self._hf.add_tokens([AddedToken(i.content, special=i.special, normalized=False) for i in self.added.values()])

    def _joined(self) -> dict[str, int]:
        """Token → id, of those that are made of others."""
        return {token: i for i, token in enumerate(self.tokens) if i not in self.added}

    def encode(self, text: str, continued: bool = False) -> np.ndarray:
        """See `tokenizer.base.Tokenizer`."""
        text = text.encode("utf-8", "ignore").decode()
        if self._special is not None:
            text = "".join(self._with_spaces(text, continued))
        chunks = split(text, CHUNK, self._cut)
        parts = [np.zeros(0, np.int32)]
        while batch := list(islice(chunks, CHUNKS_PER_CORE * (os.cpu_count() or 1))):
            parts += [np.array(found.ids, np.int32) for found in self._hf.encode_batch_fast(batch)]
        return np.concatenate(parts)

    def _with_spaces(self, text: str, continued: bool) -> Iterator[str]:
        """`text` with a space before it, and behind each token that is read first."""
        for place, part in enumerate(self._special.split(text)):
            if part and place % 2 == 0 and (place or not continued):
                yield " "
            yield part

    def spell(self, ids: Iterable[int]) -> bytes:
        """The text of `ids`, without the spaces that `encode` puts into it."""
        if not self.adds_space:
            return b"".join([self.bytes[int(i)] for i in ids])
        return without_added_spaces((self.bytes[i], i in self.added) for i in map(int, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The same as text; U+FFFD for a part of a character."""
        return self.spell(ids).decode("utf-8", "replace")

    def unknown(self, text: str) -> list[str]:
        """Halves of surrogate pairs, which nothing stands for."""
        return sorted({char for char in text if "\ud800" <= char <= "\udfff"})

    def to_json(self) -> str:
        """The tokenizer.json that gives the same ids."""
        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        unknown = [token for token, kind in zip(self.tokens, self.types, strict=True) if kind == UNKNOWN]
        spaces = _replace(" ", SPACE)
        if self.adds_space:
            spaces = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]}
        decoders = [_replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
        if self.adds_space:
            decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_added(i, token) for i, token in sorted(self.added.items())],
            "normalizer": spaces,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": unknown[0] if unknown else None,
                "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                "ignore_merges": False, "vocab": vocabulary, "merges": self.merges,
            },
        }  # fmt: skip
        return json.dumps(content, ensure_ascii=False)


def merges_of_scores(ids: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """The merges of tokens, best first, by which `tokenizers` joins what llama.cpp joins by scores.

    ValueError where two tokens that are made of others have the same score: then the first place in the text decides.
    """
    made = []
    for token, i in ids.items():
        # Of the ways to make one token, the one with the longer left half first, as transformers has it.
        cuts = range(len(token) - 1, 0, -1)
        if halves := [(token[:cut], token[cut:]) for cut in cuts if token[:cut] in ids and token[cut:] in ids]:
            made.append((-scores[i], token, halves))
    made.sort(key=lambda item: item[0])
    for (score, token, _), (next_score, next_token, _) in pairwise(made):
        if not score < next_score:
            raise ValueError(f"its tokens {token!r} and {next_token!r} have the same score")
    return [pair for _, _, halves in made for pair in halves]


def scores_of_merges(ids: dict[str, int], merges: list[tuple[str, str]], n_tokens: int) -> list[float] | None:
    """The score of each token by which llama.cpp joins what `tokenizers` joins by merges; None where no scores do."""
    scores = [0.0] * n_tokens
    made: dict[str, int] = {}
    latest = ""
    for merge in merges:
        token = "".join(merge)
        if token != latest:
            if token in made:
                return None  # another one is made between two ways to make it
            scores[ids[token]] = -1.0 - len(made)
            made[token], latest = len(made), token
    return scores if set(merges_of_scores(ids, _distinct(scores, ids, made))) == set(merges) else None


def _distinct(scores: list[float], ids: dict[str, int], made: dict[str, int]) -> list[float]:
    """The scores, with one of its own for each token that no merge makes."""
    scores = list(scores)
    for place, token in enumerate(token for token in ids if token not in made):
        scores[ids[token]] = float(1 + place)
    return scores


def keys_of_json(content: dict[str, Any]) -> Keys:
    """The keys of a parsed tokenizer.json of this kind, without special ids. ValueError where it is of another."""
    model, tokens = content["model"], dict(content["model"]["vocab"])
    added = {token["id"]: token for token in content["added_tokens"]}
    for i, token in added.items():
        tokens.setdefault(token["content"], i)
    by_id = {i: token for token, i in tokens.items()}
    if len(by_id) != len(tokens) or set(by_id) != set(range(len(by_id))):
        raise ValueError("its ids are not one number for each token, from 0 on")
    adds_space = _adds_space(content)
    spelled, types = [by_id[i] for i in range(len(by_id))], [NORMAL] * len(by_id)
    for i, token in enumerate(spelled):
        if token in BYTES:
            types[i] = BYTE
        elif token == model.get("unk_token"):
            types[i] = UNKNOWN
        elif i in added:
            types[i] = CONTROL if added[i]["special"] else USER_DEFINED
            if types[i] == USER_DEFINED:
                spelled[i] = token.replace(SPACE, " ")
    keys: Keys = {"tokenizer.ggml.tokens": spelled, "tokenizer.ggml.token_type": types}
    joined = {token: i for i, token in enumerate(spelled) if i not in read_first(keys)}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    if any(len(merge) != 2 or not tokens.keys() >= {*merge, "".join(merge)} for merge in merges):
        raise ValueError("a merge is not of two of its tokens")
    merges = [merge for merge in merges if joined.keys() >= {*merge, "".join(merge)}]
    scores = scores_of_merges(joined, merges, len(spelled))
    if scores is not None:
        return {
            "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
            **keys, "tokenizer.ggml.scores": scores, "tokenizer.ggml.add_space_prefix": adds_space,
        }  # fmt: skip
    if adds_space:
        raise ValueError("its merges have an order that llama.cpp cannot follow in a vocabulary that adds a space")
    if any("\n" in token and token.strip("\n") for token in joined) or any(" " in "".join(pair) for pair in merges):
        raise ValueError("a token of several lines, which llama.cpp cannot follow where merges have this order")
    return {
        "tokenizer.ggml.model": MERGED_MODEL, "tokenizer.ggml.pre": MERGED,
        **keys, "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
    }  # fmt: skip


def _adds_space(content: dict[str, Any]) -> bool:
    """Whether a tokenizer.json of this kind puts a space before a text. ValueError where it does what no other does."""
    normalizer, pre = content.get("normalizer"), content.get("pre_tokenizer")
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    kinds = [step["type"] for step in steps]
    replaces = [step for step in steps if step["type"] == "Replace"]
    if any(step["pattern"].get("String") != " " or step["content"] != SPACE for step in replaces):
        raise ValueError("it replaces more than spaces before it reads a text")
    if not set(kinds) <= {"Prepend", "Replace", "NFC", "NFKC", "Precompiled"}:
        raise ValueError(f"what it does to a text before it reads it ({', '.join(kinds)}) is not known to llama.cpp")
    if pre is None or (pre["type"] == "Split" and pre["behavior"] == "MergedWithPrevious"):
        # The latter is Gemma's; by then no space is left to cut at.
        if not replaces:
            raise ValueError("it does not spell spaces as ▁")
        return "Prepend" in kinds
    if pre["type"] != "Metaspace" or pre.get("replacement", SPACE) != SPACE:
        raise ValueError(f"its pre-tokenizer {pre['type']} is not known to llama.cpp")
    if pre.get("split", True) and any(SPACE in token[1:] for token in content["model"]["vocab"]):
        raise ValueError("it cuts at each space, and llama.cpp does not where a token has one inside")
    return pre.get("prepend_scheme", "always" if pre.get("add_prefix_space", True) else "never") != "never"


def keys_of_model(content: bytes) -> Keys:
    """The keys of a file tokenizer.model (a SentencePiece ModelProto). ValueError where it is no BPE, or damaged.

    https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    """
    tokens, scores, types = [], [], []
    kind, adds_space, named = 1, True, {}
    for field, value in _fields(content):
        if field == 1:  # a piece: its text, its score and its type, which llama.cpp counts alike
            piece = dict(_fields(value))
            tokens.append(piece[1].decode("utf-8"))
            scores.append(float(np.frombuffer(piece.get(2, bytes(4)), "<f4")[0]))
            types.append(piece.get(3, NORMAL))
        elif field == 2:
            trained = dict(_fields(value))
            kind = trained.get(3, kind)
            numbers = (trained.get(field, default) for field, default in ((40, 0), (41, 1), (42, 2)))
            named = dict(zip(("unknown", "bos", "eos"), numbers, strict=True))
        elif field == 3:
            adds_space = bool(dict(_fields(value)).get(3, True))
    if kind != 2:
        raise ValueError("its tokenizer.model is not a BPE of SentencePiece's")
    types = [USER_DEFINED if kind == 4 else kind for kind in types]
    tokens = [t.replace(SPACE, " ") if kind == USER_DEFINED else t for t, kind in zip(tokens, types, strict=True)]
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores, "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_space_prefix": adds_space,
        # Those that are not there are -1, which is here a very large number.
        **{f"tokenizer.ggml.{name}_token_id": i for name, i in named.items() if i < len(tokens)},
    }  # fmt: skip


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers and values of a message of Protocol Buffers: whole numbers, and bytes for all others."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        field, form = divmod(number(), 8)
        if form == 0:
            yield field, number()
            continue
        if form not in (1, 2, 5):
            raise ValueError("its tokenizer.model is damaged")
        size = {1: 8, 5: 4}.get(form) or 0
        size = number() if form == 2 else size
        if place + size > len(message):
            raise ValueError("its tokenizer.model is damaged")
        place += size
        yield field, message[place - size : place]


def _has_cut(token: str) -> bool:
    return (
        len(token) > 1
        and (SPACE in token[1:] or " " in token[1:] or "\n" in token)
        and any(1 < found.start() <= len(token) for found in BETWEEN_WORDS.finditer(f"x{token.replace(SPACE, ' ')}x"))
    )


def _bytes_of(token: str, kind: int) -> bytes:
    if kind == BYTE:
        return bytes([int(token[3:5], 16)])
    if is_control(token, kind) or kind == USER_DEFINED:
        return token.encode()
    return b"" if kind == UNUSED else token.replace(SPACE, " ").encode()


def _added(i: int, token: Added) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": token.content, **flags, "special": token.special}


def _replace(what: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": what}, "content": by}
