"""Which model is meant by --from, and that model as one of ours: configuration, weights, tokenizer, and whose it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from custom_llm.base.folder import read_card, read_config, read_json, weight_files
from custom_llm.base.size import check_fits, numbers_in_gguf, numbers_in_safetensors
from custom_llm.common.errors import UserError
from custom_llm.common.gguf import read_header
from custom_llm.common.hub import is_name
from custom_llm.common.steps import command
from custom_llm.config.model import ModelConfig
from custom_llm.export.about import clean_line
from custom_llm.model.files import Origin, is_finite
from custom_llm.tokenizer.base import Tokenizer

EXAMPLE = "HuggingFaceTB/SmolLM2-135M"
WAY_OUT = "; take another model, or get this one again"
LONGEST = 8192  # tokens a model sees at once, if nothing else is said; of more the keys and values would fill a machine
PICKLES = (".bin", ".ckpt", ".pkl")  # endings of weights that may hold code
FILES = (".gguf", ".pth", ".pt", ".bin", ".safetensors", ".zip", ".json", ".txt")  # endings of no name on the hub


@dataclass(frozen=True)
class Base:
    """A model to start a training from."""

    config: ModelConfig
    weights: dict[str, torch.Tensor]  # the state dict of our model
    tokenizer: Tokenizer
    origin: Origin
    languages: tuple[str, ...] = ()  # as its card or file says, such as "en"


def open_base(what: str, config_path: str | None = None) -> Base:
    """The model that `what` names: a Hugging Face folder, a .gguf, a .pth of ours, or a name on the Hugging Face hub.

    UserError where there is none, or it cannot be one of ours; what is too large for the memory is not read.

    config_path: of a .pth, where it is not model_config.pth beside it.
    """
    try:
        return _open(what, config_path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--from {what}: {error}") from None


def open_folder(folder: Path, name: str = "") -> Base:
    """The model in a Hugging Face folder. Raises ValueError where there is none that can be one of ours.

    name: what it is called (default: as the folder).
    """
    from custom_llm.base.huggingface import read_folder
    from custom_llm.tokenizer.carried import carried_from_folder

    described = read_config(folder)
    check_fits(numbers_in_safetensors(weight_files(folder)))
    try:
        config, weights = read_folder(folder)
    except ValueError as error:
        own_code = " (it comes with code of its own, which is never run here)" if "auto_map" in described else ""
        raise ValueError(f"{error}{own_code}{WAY_OUT}") from None
    license, languages = read_card(folder)
    origin = Origin(name or folder.resolve().name, clean_line(license))
    tokenizer = _characters_of_folder(folder) or carried_from_folder(folder, config.vocab_size, name or str(folder))
    return _base(config, weights, tokenizer, origin, languages)


def shortened(base: Base, block_size: int | None) -> Base:
    """The base with a context of another length (None: its own, up to LONGEST); UserError where it cannot see as much.

    A learned table of positions loses its end.
    """
    own = base.config.block_size
    if block_size is None:
        block_size = min(own, LONGEST)
    if block_size > own and base.config.pos_emb == "learn":
        raise UserError(f"--block_size {block_size}: {base.origin.name} knows {own} positions; give at most as many")
    weights, table = dict(base.weights), "position_embedding.weight"
    if table in weights:
        weights[table] = weights[table][:block_size].clone()
    return replace(base, config=replace(base.config, block_size=block_size), weights=weights)


def _open(what: str, config_path: str | None) -> Base:
    path = Path(what)
    try:
        is_folder, is_file, exists = bool(what) and path.is_dir(), path.is_file(), bool(what) and path.exists()
    except (OSError, ValueError):  # no path can be so long, or hold such a character
        is_folder = is_file = exists = False
    if is_file:
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"GGUF" or path.suffix == ".gguf":
            return _open_gguf(path)
        if path.suffix in PICKLES or not (start.startswith((b"PK", b"\x80")) or path.suffix == ".pth"):
            raise ValueError(f"it is no model{_other_file(path)}")
        from custom_llm.base.own import read_own

        return _base(*read_own(path, config_path))
    if config_path is not None:
        raise ValueError("--base_config is for a .pth of this program; leave it out")
    if is_folder:
        return open_folder(path)
    if exists:
        raise ValueError("it is not a regular file; give a folder, a .gguf or a .pth")
    if not what or path.suffix in FILES or what.startswith((".", "~")) or not is_name(what):
        raise ValueError(f"no such file or folder; give one, or a name on the Hugging Face hub such as {EXAMPLE}")
    from custom_llm.base.hub import download_model

    return open_folder(download_model(what), what)


def _open_gguf(path: Path) -> Base:
    from custom_llm.base.gguf import read_gguf
    from custom_llm.tokenizer.carried import carried_from_gguf

    if found := re.search(r"-(\d{5})-of-(\d{5})\.gguf$", path.name):
        first, whole = (path.name[: found.start()] + end for end in (f"-00001-of-{found[2]}.gguf", ".gguf"))
        raise ValueError(f"it is one of {int(found[2])} parts; join them: llama-gguf-split --merge {first} {whole}")
    check_fits(numbers_in_gguf(path))
    header = read_header(path)
    try:
        config, weights, quantized = read_gguf(path, header)
    except ValueError as error:
        raise ValueError(f"{error}{WAY_OUT}") from None
    metadata = header.metadata
    tokenizer = _characters_of_gguf(metadata) or carried_from_gguf(metadata, config.vocab_size, path.name)
    license, languages = metadata.get("general.license", ""), metadata.get("general.languages", [])
    origin = Origin(path.name, clean_line(str(license)), quantized)
    base = _base(config, weights, tokenizer, origin, languages if isinstance(languages, list) else [])
    trained = metadata.get("custom_llm.block_size")  # a table of positions is exported with more rows than that
    return shortened(base, trained) if type(trained) is int and 0 < trained < config.block_size else base


def _characters_of_folder(folder: Path) -> Tokenizer | None:
    """The vocabulary of characters in a folder, which only this program writes; None where there is another one."""
    from custom_llm.export.read_back import rebuild
    from custom_llm.export.vocabulary import read_vocabulary

    path = folder / "tokenizer.json"
    content = read_json(path) if path.is_file() else {}
    model = content.get("model")
    if content.get("pre_tokenizer") or not isinstance(model, dict) or model.get("merges") != []:
        return None
    try:
        return rebuild(read_vocabulary(folder))
    except (UserError, ValueError):
        return None


def _characters_of_gguf(metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The same of a GGUF file, by its metadata."""
    from custom_llm.export.read_back import rebuild
    from custom_llm.export.vocabulary import GGUFVocabulary
    from custom_llm.tokenizer.char import CharTokenizer

    if "custom_llm.block_size" not in metadata:  # a file of another program
        return None
    try:
        tokenizer = rebuild(GGUFVocabulary({key: x for key, x in metadata.items() if key.startswith("tokenizer.")}))
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return tokenizer if isinstance(tokenizer, CharTokenizer) else None


def _base(
    config: ModelConfig, weights: dict[str, torch.Tensor], tokenizer: Tokenizer, origin: Origin,
    languages: list[str] | tuple[str, ...] = (),
) -> Base:  # fmt: skip
    """The base of its parts; ValueError where a weight is no number."""
    for name, x in weights.items():
        if not is_finite(x):
            raise ValueError(f"{name} holds NaN or infinity; get it again")
    return Base(config, weights, tokenizer, origin, tuple(clean_line(str(each)) for each in languages))


def _other_file(path: Path) -> str:
    """What to do with a file that is none of those."""
    if path.suffix == ".safetensors":
        return f" by itself; give the folder it is in: {path.parent}"
    if path.suffix in PICKLES:
        return " that is opened here, since it may hold code of a stranger; give a folder with model.safetensors"
    return f"; a text to learn from is for {command('train_llm', '--dataset_path', str(path))}"
