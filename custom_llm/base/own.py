"""A trained model of this program (`trained_model.pth`) to go on from, with another text."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch

from custom_llm.common.errors import UserError
from custom_llm.common.steps import command, quoted
from custom_llm.config.model import ModelConfig
from custom_llm.model.archive import load_file
from custom_llm.model.files import Origin, load_model, own_config
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.load import load_tokenizer


def read_own(
    path: Path, config_path: str | None = None
) -> tuple[ModelConfig, dict[str, torch.Tensor], Tokenizer, Origin]:
    """The model in a .pth, its tokenizer, and where it comes from.

    config_path: of its configuration; by default the one of the same training in its folder, or model_config.pth there.

    Raises:
        ValueError: the file is no trained model, or something else that a training leaves.
        UserError: one of both files is missing, damaged, or of another training.
    """
    _check_kind(path)
    config_file = Path(config_path) if config_path else own_config(path, path.parent)
    config_file = config_file or path.with_name("model_config.pth")
    if not config_path and not config_file.exists():
        raise ValueError(f"{config_file}, which says what model it is, is missing; name it with --base_config")
    model, saved = load_model(path, config_file)
    if saved.tokenizer is None:
        flags = ("--model_path", str(path), "--config_path", str(config_file), "--dataset_path", "input.txt")
        raise ValueError(
            f"{config_file} holds no vocabulary; convert it with the text it was trained on, "
            f"{command('convert_to_gguf', *flags)}, and start from hf_model"
        )
    tokenizer = load_tokenizer(saved.tokenizer)
    if tokenizer.vocab_size != saved.model.vocab_size:
        raise ValueError(f"it has {saved.model.vocab_size:,} rows for the {tokenizer.vocab_size:,} tokens it knows")
    before = saved.base or Origin("")
    return saved.model, model.state_dict(), tokenizer, Origin(path.name, before.license, before.quantized)


def _check_kind(path: Path) -> None:
    """Raise ValueError for a file that is something else than weights."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                raise ValueError("it is an archive; unpack it, and give the folder or file in it")
    try:
        content, _ = load_file(path, command("train_llm"))
    except UserError as error:
        raise ValueError(f"{error}".removeprefix(f"{path} ")) from None
    keys = content.keys() if isinstance(content, dict) else set()
    trained = path.with_name(path.name.replace(".checkpoint", "").replace(".lora", ""))
    instead = f"give {quoted(str(trained))}" if trained.exists() and trained != path else "give its trained_model.pth"
    if {"trainer", "best_model"} <= keys:
        raise ValueError(f"it is what a training resumes from (--resume), not a trained model; {instead}")
    if {"rank", "weights"} <= keys:
        raise ValueError(f"it is an adapter, not a whole model; {instead}, which has it merged")
    if {"n_embd", "n_layer"} <= keys:
        raise ValueError("it is the description of a model, not its weights; give its trained_model.pth")
