"""A character vocabulary as a Hugging Face tokenizer.json and as the vocabulary of a GGUF file.

In both, ids are the model's own rows. Hugging Face gets a BPE of whole characters without merges. llama.cpp gets
its `gpt2` tokenizer: every character is spelled in GPT-2's alphabet of bytes, and merges put the bytes of each
character together again, so that one character is one token whatever stands around it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom_llm.data.tokenizer import END_OF_TEXT, CharTokenizer
from custom_llm.errors import UserError

NORMAL, CONTROL = 1, 3  # llama.cpp's token types


@dataclass(frozen=True)
class GGUFVocabulary:
    """What goes under `tokenizer.ggml` in a GGUF file."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    end_of_text_id: int


def tokenizer_files(tokenizer: CharTokenizer, block_size: int) -> dict[str, str]:
    """File name → content of what `AutoTokenizer` needs to read and write the same ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    hf = Tokenizer(models.BPE({char: i for i, char in enumerate(tokenizer.chars)}, merges=[]))
    hf.decoder = decoders.Fuse()
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.end_of_text_id is not None:
        hf.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
        settings |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    return {"tokenizer.json": hf.to_str(pretty=True), "tokenizer_config.json": json.dumps(settings, indent=2)}


def read_vocabulary(hf_dir: str | Path) -> GGUFVocabulary:
    """The vocabulary of a Hugging Face directory that `tokenizer_files` wrote.

    Raises:
        UserError: there is no tokenizer.json, or it is not one of ours.
    """
    path = Path(hf_dir) / "tokenizer.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        vocabulary, added = content["model"]["vocab"], content["added_tokens"]
        ids = [*vocabulary.values(), *(token["id"] for token in added)]
        if content["model"]["merges"] or any(len(token) != 1 for token in vocabulary):
            raise ValueError("not a vocabulary of characters")
        if any(type(i) is not int for i in ids) or sorted(ids) != list(range(len(ids))):
            raise ValueError("its ids are not 0, 1, 2, …")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; export the model with convert_to_gguf.py") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: {error}; export the model anew with convert_to_gguf.py") from None
    tokens = [""] * (len(vocabulary) + len(added))
    types = [NORMAL] * len(tokens)
    for char, i in vocabulary.items():
        tokens[i] = spell(char)
    for token in added:
        tokens[token["id"]], types[token["id"]] = token["content"], CONTROL
    # Without an entry llama.cpp ends every text at token 11. A vocabulary with no end token (the tutorial's) names
    # its last character; our own runtime sees that this is no control token and does not stop at it.
    end_of_text_id = added[0]["id"] if added else len(tokens) - 1
    return GGUFVocabulary(tokens, types, merges(vocabulary), end_of_text_id)


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


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: itself where it prints, else a letter from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    rest = iter(range(256, 512))
    return [chr(byte if byte in printable else next(rest)) for byte in range(256)]


BYTE_LETTERS = _byte_letters()
