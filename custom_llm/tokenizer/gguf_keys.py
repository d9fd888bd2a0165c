"""What a GGUF file says of its vocabulary, the keys `tokenizer.*`, and what llama.cpp makes of them."""

from __future__ import annotations

from typing import Any

from custom_llm.tokenizer.added_tokens import TAKEN_FOR_CONTROL, Added
from custom_llm.tokenizer.base import ENDS_OF_TEXT

Keys = dict[str, Any]  # key → number, text, or list of one kind of them

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's token types
# What it takes, whatever a file says (llama-vocab.cpp, load): for text, and for a beginning of each text.
TAKEN_FOR_TEXT = frozenset("<|channel|> <|message|> <|start|> <|constrain|>".split())
BEGIN_BY_DEFAULT = frozenset("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2".split())


def check(keys: Keys) -> None:
    """Raise ValueError where something is missing, of a wrong kind, or does not fit the rest."""
    tokens, types = keys.get("tokenizer.ggml.tokens"), keys.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError("it holds no list of tokens")
    if not isinstance(types, list) or len(types) != len(tokens) or any(type(kind) is not int for kind in types):
        raise ValueError("its tokens and their types are not of one number")
    if len(set(tokens)) != len(tokens) or "" in tokens:
        raise ValueError("a token is empty, or there twice")
    for key, value in keys.items():
        if key.endswith("_token_id") and (type(value) is not int or not 0 <= value < len(tokens)):
            raise ValueError(f"{key} is {value}, and there are {len(tokens)} tokens")


def padded(keys: Keys, n_rows: int) -> Keys:
    """The keys for a model of `n_rows` rows, with a token that is never read for each that has none.

    ValueError where there are more tokens than rows.
    """
    tokens = keys["tokenizer.ggml.tokens"]
    n_more = n_rows - len(tokens)
    if n_more < 0:
        raise ValueError(f"it has {len(tokens)} tokens and the model {n_rows} rows; a vocabulary that does not fit")
    if not n_more:
        return keys
    more = {"tokens": [f"[PAD{i}]" for i in range(len(tokens), n_rows)], "token_type": [UNUSED] * n_more}
    if "tokenizer.ggml.scores" in keys:
        more["scores"] = [-10000.0] * n_more
    return {**keys, **{f"tokenizer.ggml.{key}": keys[f"tokenizer.ggml.{key}"] + values for key, values in more.items()}}


def read_first(keys: Keys) -> dict[int, Added]:
    """Id → token, of those that are found in a text before anything else."""
    found = {}
    kinds = zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True)
    for i, (token, kind) in enumerate(kinds):
        if kind in (UNKNOWN, CONTROL, USER_DEFINED) or token in TAKEN_FOR_CONTROL:
            found[i] = Added(token, is_control(token, kind))
    return found


def is_control(token: str, kind: int) -> bool:
    """Whether a token of this type means something and is no text."""
    return (kind in (UNKNOWN, CONTROL) or token in TAKEN_FOR_CONTROL) and token not in TAKEN_FOR_TEXT


def end_of_text(keys: Keys) -> int:
    """The id of the token that ends a document; ValueError where there is none."""
    tokens = zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"], strict=True)
    ids = {token: i for i, (token, kind) in enumerate(tokens) if kind == CONTROL}
    found = [ids[token] for token in ENDS_OF_TEXT if token in ids]
    if not found and (named := keys.get("tokenizer.ggml.eos_token_id")) in ids.values():
        found = [named]
    if not found:
        raise ValueError("none of its tokens is named as the one that ends a text (eos_token)")
    return found[0]


def begin_of_text(keys: Keys) -> int | None:
    """The id of the token that llama.cpp puts before each text; None where it puts none."""
    is_spm = keys["tokenizer.ggml.model"] == "llama"
    default = is_spm or keys.get("tokenizer.ggml.pre") in BEGIN_BY_DEFAULT
    if not keys.get("tokenizer.ggml.add_bos_token", default):
        return None
    return keys.get("tokenizer.ggml.bos_token_id", 1 if is_spm else 11)
