"""A vocabulary as a Hugging Face tokenizer.json and as the vocabulary of a GGUF file.

In both, ids are the model's own rows. A byte-level BPE is one in all three places. Of a vocabulary of characters
Hugging Face gets a BPE of whole characters without merges. llama.cpp gets its `gpt2` tokenizer: every character is
spelled in GPT-2's alphabet of bytes, and merges put the bytes of each character together again, so that one character
is one token whatever stands around it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.common.steps import step
from custom_llm.tokenizer.base import END_OF_TEXT, Tokenizer
from custom_llm.tokenizer.bpe import BYTE_LETTERS, BPETokenizer, PretrainedTokenizer
from custom_llm.tokenizer.carried import CarriedTokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.gguf_keys import CONTROL, NORMAL, UNUSED, USER_DEFINED, Keys, check

KEYS = "gguf_tokenizer.json"  # in a directory: what GGUF files say about a vocabulary that came with another model


@dataclass(frozen=True)
class GGUFVocabulary:
    """What goes under `tokenizer` in a GGUF file."""

    keys: Keys

    @classmethod
    def of_bytes(
        cls, tokens: list[str], types: list[int], merges: list[str], end_of_text_id: int, pre: str = "gpt-2"
    ) -> GGUFVocabulary:
        """A vocabulary in GPT-2's alphabet of bytes; `pre`: llama.cpp's type of pre-tokenizer."""
        values = {
            "model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges,
            "bos_token_id": end_of_text_id, "eos_token_id": end_of_text_id,
            "add_bos_token": False, "add_eos_token": False, "add_space_prefix": False,
        }  # fmt: skip
        return cls({f"tokenizer.ggml.{key}": value for key, value in values.items()})

    @property
    def tokens(self) -> list[str]:
        return self.keys["tokenizer.ggml.tokens"]

    @property
    def types(self) -> list[int]:
        """llama.cpp's, of each token (`tokenizer.gguf_keys`)."""
        return self.keys["tokenizer.ggml.token_type"]

    @property
    def merges(self) -> list[str]:
        return self.keys["tokenizer.ggml.merges"]


def tokenizer_files(tokenizer: Tokenizer, block_size: int) -> dict[str, str]:
    """File name → content of what `AutoTokenizer` needs to read and write the same ids.

    Texts of several lengths in a batch are padded in front, as a model that writes on needs it, with the token that
    ends a text: there is no row for one more.
    """
    if isinstance(tokenizer, CarriedTokenizer):
        return {**tokenizer.to_files(block_size), KEYS: json.dumps(tokenizer.keys)}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        # Or transformers 4 gives token_type_ids as well, which GPT-2 takes for tokens and adds to the text.
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.end_of_text_id is not None:
        settings |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), tokenizer.end_of_text)
        settings["padding_side"] = "left"
    content = WRITERS[tokenizer.kind](tokenizer)
    return {"tokenizer.json": content, "tokenizer_config.json": json.dumps(settings, indent=2)}


def read_vocabulary(hf_dir: str | Path) -> GGUFVocabulary:
    """The vocabulary of a Hugging Face directory that `tokenizer_files` wrote.

    Of one that came with another model the keys are there. Of the others only a vocabulary of characters has no
    pre-tokenizer, and which token ends a document stands in config.json where it is not `<|endoftext|>`.

    Raises:
        UserError: there is no tokenizer.json, or it is not one of ours.
    """
    if keys := _read_keys(hf_dir):
        return GGUFVocabulary(keys)
    path = Path(hf_dir) / "tokenizer.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not content.get("pre_tokenizer"):
            return _read_characters(content)
        return _read_bpe(content, _end_of_text(content, path.with_name("config.json")))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; export the model with {step('convert_to_gguf')}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: {error}; export the model anew with {step('convert_to_gguf')}") from None


def read_carried(hf_dir: str | Path) -> CarriedTokenizer | None:
    """The tokenizer of such a directory if it came with another model. Raises UserError where it is damaged."""
    keys = _read_keys(hf_dir)
    return CarriedTokenizer(keys) if keys else None


def _read_keys(hf_dir: str | Path) -> Keys | None:
    path = Path(hf_dir) / KEYS
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
        check(keys)
        return keys
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: {error}; export the model anew with {step('convert_to_gguf')}") from None


def gguf_vocabulary(tokenizer: Tokenizer) -> GGUFVocabulary:
    """What goes into a GGUF file of a model with this tokenizer."""
    if isinstance(tokenizer, CarriedTokenizer):
        return GGUFVocabulary(tokenizer.keys)
    content = json.loads(WRITERS[tokenizer.kind](tokenizer))
    if not content.get("pre_tokenizer"):
        return _read_characters(content)
    return _read_bpe(content, tokenizer.end_of_text)


def _write_characters(tokenizer: CharTokenizer) -> str:
    from tokenizers import AddedToken, decoders, models
    from tokenizers import Tokenizer as HFTokenizer

    hf = HFTokenizer(models.BPE({char: i for i, char in enumerate(tokenizer.chars)}, merges=[]))
    hf.decoder = decoders.Fuse()
    if tokenizer.end_of_text_id is not None:
        hf.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return hf.to_str(pretty=True)


def _read_characters(content: dict[str, Any]) -> GGUFVocabulary:
    vocabulary, added = content["model"]["vocab"], content["added_tokens"]
    ids = [*vocabulary.values(), *(token["id"] for token in added)]
    if content["model"]["merges"] or any(len(token) != 1 for token in vocabulary):
        raise ValueError("not a vocabulary of characters")
    if any(type(i) is not int for i in ids) or sorted(ids) != list(range(len(ids))):
        raise ValueError("its ids are not 0, 1, 2, …")
    tokens = [""] * (len(vocabulary) + len(added))
    types = [NORMAL] * len(tokens)
    for char, i in vocabulary.items():
        tokens[i] = spell(char)
    for token in added:
        tokens[token["id"]], types[token["id"]] = token["content"], CONTROL
    # Without an entry llama.cpp ends every text at token 11. A vocabulary with no end token (the tutorial's) names
    # its last character; our own runtime sees that this is no control token and does not stop at it.
    end_of_text_id = added[0]["id"] if added else len(tokens) - 1
    return GGUFVocabulary.of_bytes(tokens, types, merges(vocabulary), end_of_text_id)


def _read_bpe(content: dict[str, Any], end_of_text: str) -> GGUFVocabulary:
    tokenizer = BPETokenizer.from_json(content, end_of_text)
    types = [NORMAL] * tokenizer.vocab_size
    for i, token in tokenizer.added.items():
        types[i] = CONTROL if token.special else USER_DEFINED
    for i in tokenizer.unused:
        types[i] = UNUSED
    joined = [f"{left} {right}" for left, right in tokenizer.merges] or merges("")
    return GGUFVocabulary.of_bytes(
        tokenizer.spelled_tokens, types, joined, tokenizer.end_of_text_id, tokenizer.pre.name
    )


def _end_of_text(content: dict[str, Any], config: Path) -> str:
    """The token that ends a document, in a tokenizer.json and the model's config.json."""
    special = {token["id"]: token["content"] for token in content["added_tokens"] if token["special"]}
    if END_OF_TEXT in special.values() or not config.exists():
        return END_OF_TEXT
    return special[json.loads(config.read_text(encoding="utf-8"))["eos_token_id"]]


# kind of tokenizer → its tokenizer.json
WRITERS: dict[str, Callable[[Any], str]] = {
    CharTokenizer.kind: _write_characters,
    BPETokenizer.kind: BPETokenizer.to_json,
    PretrainedTokenizer.kind: PretrainedTokenizer.to_json,
}


def spell(char: str) -> str:
    """A character in GPT-2's alphabet, one letter for each byte of its UTF-8 form.

    >>> spell("a"), spell(" "), spell("é")
    ('a', 'Ġ', 'Ã©')
    """
    return "".join(BYTE_LETTERS[byte] for byte in char.encode("utf-8", "surrogatepass"))


def merges(chars: Any) -> list[str]:
    """The merges that join the bytes of every multi-byte character, first two bytes first.

    >>> merges("a€")
    ['ÿ þ', 'â Ĥ', 'âĤ ¬']
    """
    # A dict for its order without repetition: characters share their first bytes. llama.cpp insists on at least one
    # merge; the two bytes of the first one never occur in UTF-8.
    found: dict[str, None] = {f"{BYTE_LETTERS[0xFF]} {BYTE_LETTERS[0xFE]}": None}
    for letters in map(spell, chars):
        found.update((f"{letters[:i]} {letters[i]}", None) for i in range(1, len(letters)))
    return list(found)
