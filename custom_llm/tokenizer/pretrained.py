"""The tokenizer of another model, from a folder or the Hugging Face hub, as one that llama.cpp reads alike.

Only its vocabulary and its way of cutting are taken. What llama.cpp does not do (Unicode normalization, a space or a
token put before the text) is left out, so that ids are the same everywhere and decode(encode(text)) == text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.common.hub import HubError, NotReached, download, is_name
from custom_llm.tokenizer.added_tokens import TAKEN_FOR_CONTROL
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.bpe import PretrainedTokenizer, check_ids, check_model
from custom_llm.tokenizer.pre_tokenizers import adds_space

FILES = """
    tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt config.json
""".split()
VOCABULARIES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "vocab.json")  # that have ids
# What ends a document, also where a chat model names the end of a turn as its end.
ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>")
OTHERS = "take char, bpe, or a byte-level BPE such as gpt2, Llama 3's or Qwen2's"


class OutOfReach(UserError):
    """A tokenizer that is perhaps on the hub, which cannot be asked here and now."""


def load_pretrained(name: str) -> tuple[PretrainedTokenizer, list[str]]:
    """The tokenizer in the folder `name`, or of the model `name` on the Hugging Face hub, and notes for the person.

    The notes say what the tokenizer does elsewhere and here does not. UserError where there is none, it cannot be read,
    or llama.cpp would read text as other ids.
    """
    loaded = _load(name, find_pretrained(name))
    try:
        content = json.loads(loaded.backend_tokenizer.to_str())
        notes = _leave_out(content, loaded)
        special = [token["content"] for token in content["added_tokens"] if token["special"]]
        ends = [token for token in (*ENDS_OF_TEXT, loaded.eos_token) if token in special]
        if not ends:
            raise ValueError("none of its special tokens is named as the one that ends a text (eos_token)")
        return PretrainedTokenizer.from_json(content, ends[0]), notes
    except ValueError as error:
        raise UserError(f"--tokenizer {name}: {error}; {OTHERS}") from None


def find_pretrained(name: str) -> Path:
    """The folder `name`, or that of what was downloaded of the model `name`.

    UserError where there is neither; OutOfReach where the hub would have to be asked and cannot be.
    """
    folder = Path(name)
    try:
        is_folder, is_file = bool(name) and folder.is_dir(), folder.is_file()
    except (OSError, ValueError):  # no path can be so long, or hold such a character
        is_folder = is_file = False
    if is_file:
        raise UserError(f"--tokenizer {name}: a file; give the folder it is in")
    return folder if is_folder else _download(name)


def _load(name: str, folder: Path) -> Any:
    """transformers' tokenizer of a folder."""
    has_json = (folder / "tokenizer.json").is_file()
    if not has_json and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise UserError(
            f"--tokenizer {name}: it has neither tokenizer.json nor vocab.json and merges.txt, so no byte-level BPE; "
            f"{OTHERS}"
        )
    from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast
    from transformers.utils import logging

    # What tokenizer.json says is right: llama.cpp knows a model's type by it. AutoTokenizer often takes only the
    # vocabulary from it, and cuts as the class named in tokenizer_config.json does: SmolLM's, which cuts off every
    # digit, would cut as GPT2Tokenizer. Where there is only a vocabulary, the class is all one has; a bare one is
    # GPT-2's.
    named = any((folder / file).is_file() for file in ("tokenizer_config.json", "config.json"))
    kind = PreTrainedTokenizerFast if has_json else AutoTokenizer if named else GPT2Tokenizer
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        _check_before_loading(name, folder)
        loaded = kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        loaded.backend_tokenizer.encode("a")  # a class without one is slow; one without its unknown token fails here
        return loaded
    except UserError:
        raise
    except BaseException as error:  # `tokenizers` raises nothing narrower for a damaged file, or panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"--tokenizer {name}: it cannot be read ({reason}); {OTHERS}") from None
    finally:
        logging.set_verbosity(verbosity)


def _check_before_loading(name: str, folder: Path) -> None:
    """UserError where `tokenizers` would panic over a file, or make a table as long as the largest number in it."""
    ids: set[int] = set()
    try:
        for file in filter(lambda file: (folder / file).is_file(), VOCABULARIES):
            content = json.loads((folder / file).read_bytes())
            if file == "tokenizer.json":
                check_model(content["model"])
                ids.update(content["model"]["vocab"].values(), (token["id"] for token in content["added_tokens"]))
            else:
                decoder = content.get("added_tokens_decoder", ())
                ids.update(map(int, decoder) if file == "tokenizer_config.json" else content.values())
        check_ids(ids)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise UserError(f"--tokenizer {name}: it cannot be read ({file} is damaged); {OTHERS}") from None
    except ValueError as error:
        raise UserError(f"--tokenizer {name}: {error}; {OTHERS}") from None


def _leave_out(content: dict[str, Any], loaded: Any) -> list[str]:
    """Remove from a parsed tokenizer.json what llama.cpp does not do, and say what that is."""
    notes = []
    normalizer = content["normalizer"]
    if normalizer is not None and normalizer.get("normalizers") != []:
        names = [step["type"] for step in normalizer.get("normalizers", [normalizer])]
        notes.append(f"text stays as it is, where the tokenizer would normalize it ({', '.join(names)})")
    if adds_space(content["pre_tokenizer"]):
        notes.append("no space is put before a text, where the tokenizer would put one")
    backend = loaded.backend_tokenizer
    if added := set(backend.encode("a").ids) - set(backend.encode("a", add_special_tokens=False).ids):
        tokens = ", ".join(sorted(loaded.convert_ids_to_tokens(sorted(added))))
        notes.append(f"no token is put around a text, where the tokenizer would put {tokens}")
    content["normalizer"] = content["post_processor"] = None
    # What llama.cpp takes for a control token by its text alone becomes one (Qwen2's vocabulary has `</s>`).
    vocabulary = content["model"].get("vocab")
    if isinstance(vocabulary, dict):
        known = {token["content"] for token in content["added_tokens"]}
        for token in sorted((vocabulary.keys() & TAKEN_FOR_CONTROL) - known):
            content["added_tokens"].append({"id": vocabulary[token], "content": token, "special": True})
            notes.append(f"{token} is read as one token, since llama.cpp takes it for a control token")
    return notes


def _download(name: str) -> Path:
    """The folder of what a model on the hub has of FILES; from the hub's cache, if it cannot be reached."""
    if not is_name(name):
        raise UserError(f"--tokenizer {name}: no such folder; {OTHERS}")
    try:
        folder = download(name, FILES)
    except NotReached as error:
        raise OutOfReach(
            f"--tokenizer {name}: {error.reason}; give a folder that holds tokenizer.json, take char or bpe, or add "
            "--fallback for byte pairs learnt from the text"
        ) from None
    except HubError as error:
        raise UserError(f"--tokenizer {name}: {error.reason}; {error.way_out or OTHERS}") from None
    if folder is None:
        raise UserError(f"--tokenizer {name}: this model on the hub has no tokenizer; {OTHERS}")
    return folder
