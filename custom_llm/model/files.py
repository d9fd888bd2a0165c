"""The two files of a model: `model_config.pth` (what it is) and `trained_model.pth` (its weights).

`model_config.pth` is a dict of plain values: the fields of `ModelConfig`, and once trained
    tokenizer   the vocabulary, as its tokenizer describes itself
    sample      a few thousand characters of the training text, on which an exported file is proven
    training    a dict of what the cards of the model say about it (see `Provenance`)
    base        what the training starts from, if that is another model (see `Origin`); its weights are in
                `model_config.base.pth` beside it, and it has a tokenizer before it is trained
`trained_model.pth` is a state dict. Both load with `weights_only=True`: no code of a stranger is ever run. Each says of
which training it is (see `model/archive.py`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from custom_llm.common.errors import UserError
from custom_llm.common.files import BASE_WEIGHTS, beside, replacing, write_bytes
from custom_llm.common.steps import command, quoted, step
from custom_llm.config.model import ModelConfig
from custom_llm.model.archive import Label, label_of, load_file, to_bytes
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


@dataclass(frozen=True)
class Origin:
    """The model that a training starts from, in words."""

    name: str  # owner/name on the hub, or of its folder or file
    license: str = ""  # as its card or file says
    quantized: str = ""  # the type of its weights, where they were rounded to few bits

    @classmethod
    def from_dict(cls, values: object) -> Origin | None:
        """What `asdict` gave; None for anything else."""
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or not values.get("name") or not names >= values.keys():
            return None
        return cls(**values) if all(isinstance(value, str) for value in values.values()) else None


EXTRAS = ("tokenizer", "sample", "training", "base")


@dataclass(frozen=True)
class SavedConfig:
    """The content of `model_config.pth`."""

    model: ModelConfig
    tokenizer: dict[str, Any] | None = None
    sample: str = ""
    training: Provenance = field(default_factory=Provenance)
    training_id: str = ""  # by which the files of a training know each other
    base: Origin | None = None  # what the training starts from; None: random weights
    from_tutorial: bool = False  # the weights were written by the original tutorial's scripts; not saved


def save_config(path: str | Path, saved: SavedConfig) -> None:
    """Write `model_config.pth`. Raises UserError when the file cannot be written."""
    write_bytes(path, _config_bytes(saved))


def load_config(path: str | Path) -> SavedConfig:
    """The content of `model_config.pth`; UserError where it is missing, damaged, or not a model configuration."""
    values, label = load_file(path, command("llm_model"))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} is not a model configuration; write one with {command('llm_model')}")
    extras = {key: values.pop(key) for key in EXTRAS if key in values}
    if not isinstance(extras.get("sample", ""), str):
        raise UserError(f"{path}: its sample is not a text; train again with {command('train_llm')}")
    training, base = Provenance.from_dict(extras.pop("training", {})), Origin.from_dict(extras.pop("base", None))
    try:
        model = ModelConfig.from_dict(values)
        return SavedConfig(model, **extras, training=training, training_id=label.training, base=base)
    except ValueError as error:
        raise UserError(f"{path}: {error}; write a new one with {command('llm_model')}") from None


def save_weights(path: str | Path, model: torch.nn.Module) -> None:
    """Write `trained_model.pth`. Raises UserError when the file cannot be written."""
    write_bytes(path, to_bytes(model.state_dict()))


def save_trained(
    model_path: str | Path, weights: dict[str, torch.Tensor], config_path: str | Path, saved: SavedConfig
) -> None:
    """Write both files; if one of them cannot be written, neither is changed. The configuration gets its name first."""
    with replacing(model_path) as model_file, replacing(config_path) as config_file:
        config_file.write_bytes(_config_bytes(saved))
        model_file.write_bytes(to_bytes(weights, Label("weights", saved.training_id)))


def base_path(config_path: str | Path) -> Path:
    """The file of the weights that a training of this configuration starts from."""
    return beside(config_path, BASE_WEIGHTS)


def save_base(config_path: str | Path, saved: SavedConfig, weights: dict[str, torch.Tensor]) -> None:
    """Write the configuration of a model that starts from another one, and the weights of that one beside it.

    They stay in the type they have. If one of both files cannot be written, neither is changed.
    """
    with replacing(base_path(config_path)) as weights_file, replacing(config_path) as config_file:
        config_file.write_bytes(_config_bytes(saved))
        weights_file.write_bytes(to_bytes(weights, Label("base", saved.training_id)))


def load_base(config_path: str | Path, saved: SavedConfig) -> dict[str, torch.Tensor]:
    """The weights that `saved`, read from `config_path`, starts from; UserError where they are gone or others."""
    path = base_path(config_path)
    again = command("llm_model", "--from", saved.base.name)
    weights, _ = load_file(path, again)
    if not is_state_dict(weights):
        raise UserError(f"{path} is not a state dict of numbers; make it anew with {again}")
    check_weights(weights, saved.model, path, config_path)
    return weights


def load_model(model_path: str | Path, config_path: str | Path) -> tuple[GPTLanguageModel, SavedConfig]:
    """The trained model in evaluation mode, and its configuration.

    A pair written by the original tutorial's scripts is recognised by its attention masks and loads as what it is: a
    ReLU feed-forward and an output layer with a bias. UserError where a file is missing or damaged, or the two do not
    belong together.
    """
    saved = load_config(config_path)
    weights, label = load_file(model_path, command("train_llm"))
    if not is_state_dict(weights):
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
    _check_same_training(label.training, saved.training_id, Path(model_path), Path(config_path))
    check_weights(weights, saved.model, model_path, config_path)
    model = GPTLanguageModel(saved.model)
    model.load_state_dict(weights)
    return model.eval(), saved


def own_config(model_path: Path, folder: Path) -> Path | None:
    """The configuration in `folder` that is of the same training as a model; None where there is none."""
    wanted = label_of(model_path)
    found = [path for path in sorted(folder.glob("*.pth")) if label_of(path) == Label("config", wanted.training)]
    return found[0] if wanted.training and found else None


def _check_same_training(of_weights: str, of_config: str, model_path: Path, config_path: Path) -> None:
    """Raise UserError where both files say of which training they are, and it is not the same one."""
    if not of_weights or not of_config or of_weights == of_config:
        return
    own = own_config(model_path, config_path.parent) or own_config(model_path, model_path.parent)
    way_out = f"give its own: --config_path {quoted(str(own))}" if own else f"train again with {command('train_llm')}"
    raise UserError(f"{config_path} is of another training than {model_path}; {way_out}")


def check_weights(
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


def is_state_dict(weights: object) -> bool:
    """Whether these are names and plain matrices of real numbers."""
    return isinstance(weights, dict) and all(_is_weight(*item) for item in weights.items())


def _is_weight(name: object, value: object) -> bool:
    is_plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
    return isinstance(name, str) and is_plain and value.dtype.is_floating_point and value.dtype.itemsize > 1


def _config_bytes(saved: SavedConfig) -> bytes:
    values = saved.model.to_dict()
    if saved.tokenizer is not None:
        values |= {"tokenizer": saved.tokenizer, "sample": saved.sample, "training": saved.training.to_dict()}
    if saved.base is not None:
        values["base"] = asdict(saved.base)
    return to_bytes(values, Label("config", saved.training_id))


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
            if own := own_config(Path(model_path), Path(config_path).parent):
                raise UserError(
                    f"{config_path} is of no training, and {own} is that of {model_path}; give it: --config_path "
                    f"{quoted(str(own))}"
                )
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
