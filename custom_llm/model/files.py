"""The two files of a model: `model_config.pth` (what it is) and `trained_model.pth` (its weights).

`model_config.pth` is a dict of plain values: the fields of `ModelConfig`, and once trained
    tokenizer   the vocabulary, as its tokenizer describes itself
    sample      a few thousand characters of the training text, on which an exported file is proven
    training    a dict of what the cards of the model say about it (see `Provenance`)
`trained_model.pth` is a state dict. Both load with `weights_only=True`: no code of a stranger is ever run.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import replacing, write_bytes
from custom_llm.common.steps import command, step
from custom_llm.config.model import ModelConfig
from custom_llm.model.gpt import GPTLanguageModel
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.load import load_tokenizer

_KINDS = {"int": (int,), "float": (int, float), "str": (str,)}


@dataclass(frozen=True)
class Provenance:
    """The training of a model; None or an empty text is not known."""

    dataset: str = ""  # the text by its name, without the folders it is in
    hub_dataset: str = ""  # owner/name of it, if it is from the Hugging Face hub
    characters: int | None = None  # of the whole text
    tokens: int | None = None
    held_out_tokens: int | None = None  # at its end, which were not trained on
    tokenizer: str = ""  # char, bpe, or the name of a pretrained one
    n_parameters: int | None = None
    epochs: float | None = None  # counts parts of one, too
    steps: int | None = None
    kept_step: int | None = None  # at which the held-out loss was lowest, from which the weights are
    tokens_seen: int | None = None
    minutes: float | None = None
    batch_size: int | None = None  # windows in a step
    learning_rate: float | None = None  # the highest
    optimizer: str = ""
    schedule: str = ""
    loss: float | None = None  # of training at its end, in nats per token
    held_out_loss: float | None = None  # the lowest, in nats per token
    bits_per_byte: float | None = None  # the same for each byte of the held-out text in UTF-8
    torch: str = ""  # its version
    device: str = ""  # cpu, cuda or mps
    text: str = ""  # what the model wrote when it was finished

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain values."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def from_dict(cls, values: object) -> Provenance:
        """What `to_dict` gave; what is of a wrong kind is not known, since no model is lost for a note about it."""
        if not isinstance(values, dict):
            return cls()
        kept = {}
        for item in fields(cls):
            value = values.get(item.name)
            kinds = _KINDS[str(item.type).partition(" | ")[0]]
            is_fit = isinstance(value, kinds) and not isinstance(value, bool)
            if is_fit and (isinstance(value, str) or (math.isfinite(value) and value >= 0)):
                kept[item.name] = value
        return cls(**kept)


EXTRAS = ("tokenizer", "sample", "training")
# All that torch.load is known to raise for a file that is foreign, cut short or altered.
DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError)


@dataclass(frozen=True)
class SavedConfig:
    """The content of `model_config.pth`."""

    model: ModelConfig
    tokenizer: dict[str, Any] | None = None
    sample: str = ""
    training: Provenance = field(default_factory=Provenance)
    from_tutorial: bool = False  # the weights were written by the original tutorial's scripts; not saved


def save_config(path: str | Path, saved: SavedConfig) -> None:
    """Write `model_config.pth`. Raises UserError when the file cannot be written."""
    write_bytes(path, _config_bytes(saved))


def load_config(path: str | Path) -> SavedConfig:
    """The content of `model_config.pth`; UserError where it is missing, damaged, or not a model configuration."""
    values = load_file(path, command("llm_model"))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} is not a model configuration; write one with {command('llm_model')}")
    extras = {key: values.pop(key) for key in EXTRAS if key in values}
    if not isinstance(extras.get("sample", ""), str):
        raise UserError(f"{path}: its sample is not a text; train again with {command('train_llm')}")
    training = Provenance.from_dict(extras.pop("training", {}))
    try:
        return SavedConfig(ModelConfig.from_dict(values), **extras, training=training)
    except ValueError as error:
        raise UserError(f"{path}: {error}; write a new one with {command('llm_model')}") from None


def save_weights(path: str | Path, model: torch.nn.Module) -> None:
    """Write `trained_model.pth`. Raises UserError when the file cannot be written."""
    write_bytes(path, _to_bytes(model.state_dict()))


def save_trained(
    model_path: str | Path, weights: dict[str, torch.Tensor], config_path: str | Path, saved: SavedConfig
) -> None:
    """Write both files; if one of them cannot be written, neither is changed."""
    with replacing(config_path) as config_file, replacing(model_path) as model_file:
        config_file.write_bytes(_config_bytes(saved))
        model_file.write_bytes(_to_bytes(weights))


def load_model(model_path: str | Path, config_path: str | Path) -> tuple[GPTLanguageModel, SavedConfig]:
    """The trained model in evaluation mode, and its configuration.

    A pair written by the original tutorial's scripts is recognised by its attention masks and loads as what it is: a
    ReLU feed-forward and an output layer with a bias. UserError where a file is missing or damaged, or the two do not
    belong together.
    """
    saved = load_config(config_path)
    weights = load_file(model_path, command("train_llm"))
    if not isinstance(weights, dict) or not all(_is_weight(*item) for item in weights.items()):
        raise UserError(f"{model_path} is not a state dict of numbers; train a model with {command('train_llm')}")
    # What torch's wrappers for several GPUs and for compilation put in front of every name.
    weights = {name.replace("module.", "").replace("_orig_mod.", ""): value for name, value in weights.items()}
    masks = [name for name in weights if name.endswith(".attn.tril")]
    if masks:
        weights = {name: tensor for name, tensor in weights.items() if name not in masks}
        table = weights.get("token_embedding.weight")
        vocab_size = len(table) if table is not None and table.dim() else 0  # the tutorial never saved the real one
        config = replace(saved.model, vocab_size=vocab_size or saved.model.vocab_size)
        config = replace(config, non_linearity="relu", head_bias=True)
        saved = replace(saved, model=config, from_tutorial=True)
    _check_weights(weights, saved.model, model_path, config_path)
    model = GPTLanguageModel(saved.model)
    model.load_state_dict(weights)
    return model.eval(), saved


def _check_weights(
    weights: dict[str, torch.Tensor], config: ModelConfig, model_path: str | Path, config_path: str | Path
) -> None:
    """Raise UserError unless these are the weights of the model."""
    outline = GPTLanguageModel.outline(config)
    expected = {name: tuple(tensor.shape) for name, tensor in outline.state_dict().items()}
    for name, shape in expected.items():
        if name not in weights:
            raise UserError(f"{model_path} lacks {name}, which {config_path} asks for; they are not of one training")
        if tuple(weights[name].shape) != shape:
            raise UserError(
                f"{model_path}: {name} is {'×'.join(map(str, weights[name].shape))} where {config_path} says "
                f"{'×'.join(map(str, shape))}; they are not of one training, so train again with "
                f"{command('train_llm')}"
            )
        if not torch.isfinite(weights[name]).all():
            raise UserError(f"{model_path}: {name} holds NaN or infinity; train again with a lower --learning_rate")
    unexpected = sorted(set(weights) - set(expected))
    if unexpected:
        raise UserError(f"{model_path} has {unexpected[0]}, which {config_path} does not ask for")


def _is_weight(name: object, value: object) -> bool:
    """Whether a state dict's item is a name and a plain matrix of real numbers."""
    is_plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
    return isinstance(name, str) and is_plain and value.dtype.is_floating_point and value.dtype.itemsize > 1


def _config_bytes(saved: SavedConfig) -> bytes:
    values = saved.model.to_dict()
    if saved.tokenizer is not None:
        values |= {"tokenizer": saved.tokenizer, "sample": saved.sample, "training": saved.training.to_dict()}
    return _to_bytes(values)


def _to_bytes(value: Any) -> bytes:
    """What torch.save writes; by way of memory, because torch.save hides the reason when a disk is full."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def load_file(path: str | Path, remedy: str) -> Any:
    """What torch.save has written to a file; UserError names the `remedy` where that cannot be read."""
    if Path(path).is_fifo():  # to open it would wait for a writer
        raise UserError(f"{path} is not a regular file; make one with {remedy}")
    try:
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about foreign files before it refuses them
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with {remedy}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {describe_os_error(error)}") from None
    except DAMAGED:
        raise UserError(f"{path} is damaged or not a file of this project; make it anew with {remedy}") from None


SAMPLE_CHARACTERS = 1 << 14  # of a tutorial's text, to prove files on


def load_trained(
    model_path: str | Path, config_path: str | Path, text: str | None = None
) -> tuple[GPTLanguageModel, Tokenizer, SavedConfig]:
    """The trained model, its tokenizer and its configuration.

    From the training `text` the vocabulary of a tutorial's model is rebuilt. UserError where a file is missing or
    damaged, or there is no vocabulary for the model.
    """
    model, saved = load_model(model_path, config_path)
    if saved.tokenizer is None:
        if text is None:
            raise UserError(
                f"{config_path} holds no vocabulary (its model is untrained, or the tutorial's); give the text it was "
                f"trained on to {step('convert_to_gguf')}, with --dataset_path"
            )
        # The tutorial's vocabulary had no end-of-text token. (Ours gets lost when step 1 is run again after step 2.)
        tokenizer = CharTokenizer.from_text(text, end_of_text=not saved.from_tutorial)
        saved = replace(saved, tokenizer=tokenizer.to_dict())
    try:
        tokenizer = load_tokenizer(saved.tokenizer)
    except ValueError as error:
        raise UserError(f"{config_path}: {error}; train again with {command('train_llm')}") from None
    if tokenizer.vocab_size != model.config.vocab_size:
        raise UserError(
            f"the vocabulary has {tokenizer.vocab_size} tokens and {model_path} has {model.config.vocab_size}; "
            "it is not the text this model was trained on"
        )
    return model, tokenizer, replace(saved, sample=saved.sample or (text or "")[:SAMPLE_CHARACTERS])
