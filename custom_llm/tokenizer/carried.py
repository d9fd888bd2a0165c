"""The tokenizer of a model that a training starts from, carried unchanged to all that is made of it.

Its keys `tokenizer.*` are those of the base's GGUF file, or what llama.cpp's converter would make of its folder, and go
into our GGUF files as they are. Text is read by them as llama.cpp reads it: special tokens first; for byte-level BPE by
`BPETokenizer`, for SentencePiece's by `SentencePieceBPE`. The files of a folder go into our Hugging Face directory as
they are; for a base from a GGUF file, such files are made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.tokenizer.added_tokens import TAKEN_FOR_CONTROL
from custom_llm.tokenizer.bpe import BPETokenizer, check_model
from custom_llm.tokenizer.gguf_keys import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Keys,
    begin_of_text,
    check,
    end_of_text,
    padded,
    read_first,
)
from custom_llm.tokenizer.pre_tokenizers import BY_NAME
from custom_llm.tokenizer.spm import MERGED, SentencePieceBPE, keys_of_json, keys_of_model

# What `AutoTokenizer` reads of a folder, beside tokenizer.json.
FILES = """
    tokenizer_config.json special_tokens_map.json added_tokens.json chat_template.jinja chat_template.json
""".split()
# Special tokens in a tokenizer_config.json → their names in a GGUF file.
SPECIAL = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
    "sep_token": "seperator",
}
KNOWN = "a byte-level BPE (as of GPT-2, Llama 3, Qwen, SmolLM) or SentencePiece's (as of Llama 2, Mistral, Gemma)"


class CarriedTokenizer:
    """A tokenizer that came with a model."""

    kind = "carried"

    def __init__(self, keys: Keys, files: Mapping[str, str] | None = None) -> None:
        """ValueError where `keys` are damaged, or of a kind that cannot be read here as llama.cpp reads it.

        Args:
            keys: `tokenizer.*` of its GGUF file, with a token for each row of the model.
            files: name → content of those of its folder, where it is from one; they are tokenizer.json and FILES.
        """
        check(keys)
        self.keys, self.files = keys, dict(files or {})
        tokens = keys["tokenizer.ggml.tokens"]
        self.vocab_size = len(tokens)
        self.end_of_text_id, self.begin_of_text_id = end_of_text(keys), begin_of_text(keys)
        self.end_of_text = tokens[self.end_of_text_id]
        self.separator = self.end_of_text
        if self.begin_of_text_id is not None:
            self.separator += tokens[self.begin_of_text_id]
        self._reader = _make_reader(keys, self.end_of_text)

    def encode(self, text: str, continued: bool = False) -> np.ndarray:
        """The ids of `text`, int32 of shape (n,), as llama.cpp reads it; what is `unknown` is left out.

        continued: `text` goes on where another ended, so no space is put before it.
        """
        return self._reader.encode(text, continued)

    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that cannot be encoded."""
        return self._reader.unknown(text)

    def spell(self, ids: Iterable[int]) -> bytes:
        """The text of `ids` in UTF-8, without spaces that `encode` puts into it."""
        return self._reader.spell(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The same as text; U+FFFD where they begin or end in the middle of a character."""
        return self._reader.decode(ids)

    @property
    def bytes(self) -> list[bytes]:
        """What each token stands for, by id."""
        return self._reader.bytes

    @cached_property
    def tokens(self) -> list[str]:
        """The text of every token, by id; U+FFFD for a part of a character."""
        return [token.decode("utf-8", "replace") for token in self.bytes]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "keys": self.keys, "files": self.files}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CarriedTokenizer:
        keys, files = values["keys"], values["files"]
        if not isinstance(keys, dict) or not isinstance(files, dict):
            raise ValueError("keys and files must be dicts")
        if not all(isinstance(text, str) for text in (*keys, *files, *files.values())):
            raise ValueError("the files of a tokenizer must be texts")
        return cls(keys, files)

    def to_files(self, block_size: int) -> dict[str, str]:
        """Name → content of the files by which `AutoTokenizer` reads and writes the same ids.

        block_size: the longest text of the model, in tokens.
        """
        tokens = self.keys["tokenizer.ggml.tokens"]
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": block_size,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        }
        for name, key in SPECIAL.items():
            if (i := self.keys.get(f"tokenizer.ggml.{key}_token_id")) is not None:
                settings[name] = tokens[i]
        if (template := self.keys.get("tokenizer.chat_template")) is not None:
            settings["chat_template"] = template
        if self.begin_of_text_id is not None:
            settings["add_bos_token"] = True
        made = {"tokenizer_config.json": json.dumps(settings, indent=2)}
        if self.files:
            return {**made, **self.files}
        content = json.loads(self._reader.to_json())
        if self.begin_of_text_id is not None:
            content["post_processor"] = _begins_with(tokens[self.begin_of_text_id], self.begin_of_text_id)
        return {**made, "tokenizer.json": json.dumps(content, ensure_ascii=False)}


def carried_from_gguf(metadata: Mapping[str, Any], n_rows: int, name: str = "its GGUF file") -> CarriedTokenizer:
    """The tokenizer in the metadata of a GGUF file (`common.gguf.read_header`), for a model of `n_rows` rows.

    name: of the file, for errors. UserError where there is none, or it cannot be read here as llama.cpp reads it.
    """
    try:
        keys = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
        if "tokenizer.ggml.model" not in keys:
            raise ValueError("it holds no vocabulary")
        n_tokens = len(keys["tokenizer.ggml.tokens"]) if "tokenizer.ggml.tokens" in keys else 0
        # llama.cpp, too, takes no notice of a number that is too large, by which some files say that there is none.
        keys = {key: value for key, value in keys.items() if not key.endswith("_token_id") or 0 <= value < n_tokens}
        return CarriedTokenizer(padded(keys, n_rows))
    except (ValueError, KeyError, TypeError) as error:
        raise _unfit(name, error) from None


def carried_from_folder(folder: str | Path, n_rows: int | None = None, name: str | None = None) -> CarriedTokenizer:
    """The tokenizer of a Hugging Face folder, for a model of `n_rows` rows (default: as many as it has tokens).

    name: of the model, for errors. UserError where there is none, it is damaged, or llama.cpp has nothing like it.
    """
    folder = Path(folder)
    name = name or str(folder)
    try:
        files = {file: (folder / file).read_text(encoding="utf-8") for file in FILES if (folder / file).is_file()}
        settings = json.loads(files.get("tokenizer_config.json", "{}"))
        if not isinstance(settings, dict):
            raise ValueError("tokenizer_config.json is damaged")
        if (folder / "tokenizer.json").is_file():
            files["tokenizer.json"] = (folder / "tokenizer.json").read_text(encoding="utf-8")
            content = json.loads(files["tokenizer.json"])
            is_byte_level = _is_byte_level(content)
            keys = _byte_level_keys(content) if is_byte_level else keys_of_json(_checked(content))
        elif (folder / "tokenizer.model").is_file():
            content, files = {}, {}  # AutoTokenizer would need `sentencepiece` for it
            keys = keys_of_model((folder / "tokenizer.model").read_bytes())
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            content = _byte_level_content(folder)
            files["tokenizer.json"] = json.dumps(content, ensure_ascii=False)
            keys = _byte_level_keys(content)
        else:
            raise UserError(
                f"{name}: it has no tokenizer.json, tokenizer.model, or vocab.json and merges.txt; get it whole"
            )
        keys |= _special_ids(keys, content, settings)
        if (template := _chat_template(files, settings)) is not None:
            keys["tokenizer.chat_template"] = template
        check(keys)
        end = end_of_text(keys)
        keys.setdefault("tokenizer.ggml.eos_token_id", end)  # without one llama.cpp takes 11 or 2
        keys.setdefault("tokenizer.ggml.bos_token_id", end)
        return CarriedTokenizer(padded(keys, n_rows or len(keys["tokenizer.ggml.tokens"])), files)
    except OSError as error:
        raise UserError(f"cannot read {describe_os_error(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _unfit(name, error) from None


def _unfit(name: str, error: Exception) -> UserError:
    reason = str(error) if type(error) is ValueError else f"a vocabulary that is damaged ({error!r})"
    return UserError(f"{name}: {reason}; take a model with {KNOWN}")


def _make_reader(keys: Keys, end: str) -> BPETokenizer | SentencePieceBPE:
    """What reads text by these keys."""
    model, pre = keys.get("tokenizer.ggml.model"), keys.get("tokenizer.ggml.pre", "default")
    if model == "llama" or (model, pre) == ("gpt2", MERGED):
        return SentencePieceBPE(keys)
    if model != "gpt2":
        raise ValueError(f"its vocabulary is of the kind {model!r}, which cannot be read here")
    if pre not in BY_NAME:
        raise ValueError(f"its text is cut by {pre!r}, which is not known here ({', '.join(sorted(BY_NAME))} are)")
    merges = [tuple(merge.split(" ")) for merge in keys["tokenizer.ggml.merges"]]
    return BPETokenizer(keys["tokenizer.ggml.tokens"], merges, read_first(keys), BY_NAME[pre], end)


def _is_byte_level(content: dict[str, Any]) -> bool:
    steps = content.get("pre_tokenizer") or {}
    return any(step["type"] == "ByteLevel" for step in steps.get("pretokenizers", [steps]) if step)


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """A parsed tokenizer.json that is no byte-level BPE; ValueError where it is not SentencePiece's either."""
    model = content["model"]
    if model.get("type", "BPE") != "BPE" or not model.get("byte_fallback"):
        without = "" if model.get("byte_fallback") else " without tokens for bytes"
        raise ValueError(f"its vocabulary is {model.get('type', 'BPE')}{without}, which cannot be carried to llama.cpp")
    return content


def _byte_level_content(folder: Path) -> dict[str, Any]:
    """The tokenizer.json of a folder that has its parts only."""
    from custom_llm.tokenizer.pretrained import load_backend

    return json.loads(load_backend(str(folder), folder).backend_tokenizer.to_str())


def _byte_level_keys(content: dict[str, Any]) -> Keys:
    """The keys of a byte-level BPE. ValueError where llama.cpp would read text as other ids."""
    check_model(content["model"])
    # Text is read as llama.cpp reads it: it does not normalize, and what it takes for a control token is one.
    content = {**content, "normalizer": None, "post_processor": None, "added_tokens": list(content["added_tokens"])}
    known = {token["content"] for token in content["added_tokens"]}
    vocabulary = content["model"]["vocab"]
    for token in sorted((vocabulary.keys() & TAKEN_FOR_CONTROL) - known):
        content["added_tokens"].append({"id": vocabulary[token], "content": token, "special": True})
    special = [token["content"] for token in content["added_tokens"] if token["special"]]
    if not special:
        raise ValueError("none of its tokens is named as the one that ends a text (eos_token)")
    tokenizer = BPETokenizer.from_json(content, special[0])
    types = [NORMAL] * tokenizer.vocab_size
    for i, token in tokenizer.added.items():
        types[i] = CONTROL if token.special else USER_DEFINED
    for i in tokenizer.unused:
        types[i] = UNUSED
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": tokenizer.pre.name,
        "tokenizer.ggml.tokens": tokenizer.spelled_tokens, "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in tokenizer.merges],
    }  # fmt: skip


def _special_ids(keys: Keys, content: dict[str, Any], settings: dict[str, Any]) -> Keys:
    """The ids of special tokens, and whether one stands before each text."""
    ids = {token: i for i, token in enumerate(keys["tokenizer.ggml.tokens"])}
    named = {key: i for key in SPECIAL.values() if (i := keys.get(f"tokenizer.ggml.{key}_token_id")) is not None}
    for name, key in SPECIAL.items():
        token = settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids:
            named[key] = ids[token]
    unknown = ids.get((content.get("model") or {}).get("unk_token"))
    if unknown is not None:
        named.setdefault("unknown", unknown)
    first = _put_first(content)
    if first in ids:
        named.setdefault("bos", ids[first])
    adds = settings.get("add_bos_token")
    adds = adds if isinstance(adds, bool) else first is not None if content else True
    found: Keys = {f"tokenizer.ggml.{key}_token_id": i for key, i in named.items()}
    return {**found, "tokenizer.ggml.add_bos_token": adds and "bos" in named, "tokenizer.ggml.add_eos_token": False}


def _put_first(content: dict[str, Any]) -> str | None:
    """The token that a parsed tokenizer.json puts before a text."""
    last = content.get("post_processor") or {}
    for step in last.get("processors", [last]):
        if step.get("type") == "TemplateProcessing":
            first = step["single"][0].get("SpecialToken")
            return first and first["id"]
    return None


def _chat_template(files: Mapping[str, str], settings: dict[str, Any]) -> str | None:
    if "chat_template.jinja" in files:
        return files["chat_template.jinja"]
    template = settings.get("chat_template")
    if isinstance(template, list):  # of several, by name
        template = next((each.get("template") for each in template if each.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _begins_with(token: str, i: int) -> dict[str, Any]:
    """What puts a token before each text, in a tokenizer.json."""
    begin, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, begin, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [i], "tokens": [token]}},
    }
