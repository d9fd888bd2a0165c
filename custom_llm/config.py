"""What a person decides: the architecture (`ModelConfig`) and the training run (`TrainConfig`).

Plain dataclasses without torch. Every field is a flag of the script it belongs to; fields with a `question` are
also asked at the terminal. Adding an option is adding a field here and using it where it matters.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from custom_llm.blocks import (
    DEFAULTS,
    BlockConfig,
    default_up_dim,
    known_keys,
    make_block,
    parse_json,
    parse_layers,
)
from custom_llm.expressions import parse_count
from custom_llm.options import check_fields, option, shown

# The options of a block, which are options of the model as well while all blocks are alike.
BLOCK = {item.name: option(item.default, **item.metadata) for item in fields(BlockConfig)}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture. The first six fields are the tutorial's keys and enough on their own."""

    vocab_size: int = option(
        10_000,
        "tokens the model knows; training replaces it by the text's real number",
        question="Enter vocabulary size (e.g., 10000 for small models): ",
        low=1,
        high=10_000_000,
    )
    n_embd: int = option(
        256, "width of the model", question="Enter embedding dimension (e.g., 256): ", low=1, high=65_536
    )
    n_head: int = option(
        8,
        "attention heads; n_embd is a multiple of it",
        question="Enter number of attention heads (e.g., 8): ",
        low=1,
        high=1024,
    )
    n_layer: int = option(
        6,
        "transformer blocks",
        question="Enter number of transformer layers (e.g., 6): ",
        low=1,
        high=512,  # LLAMA_MAX_LAYERS of llama.cpp
    )
    block_size: int = option(
        128,
        "tokens the model sees at once",
        question="Enter max sequence length (e.g., 128): ",
        low=1,
        high=1_048_576,
    )
    dropout: float = option(
        0.1,
        "share of activations dropped in training",
        question="Enter dropout rate (e.g., 0.1): ",
        low=0.0,
        high=0.99,
    )
    pos_emb: str = option(
        "learn",
        "how the model knows positions: a learned table, sines, or rotations (RoPE)",
        words="positions",
        choices=("learn", "sin", "rope"),
    )
    norm: str = option("layer", "normalisation: LayerNorm or RMSNorm", words="normalisation", choices=("layer", "rms"))
    bias: bool = option(
        True, "biases in attention, feed-forward layers and LayerNorms; experts never have any", words="biases"
    )
    attn: str = BLOCK["attn"]
    n_kv_heads: int | None = BLOCK["n_kv_heads"]
    q_latent_dim: int | None = BLOCK["q_latent_dim"]
    kv_latent_dim: int | None = BLOCK["kv_latent_dim"]
    rope_head_dim: int | None = BLOCK["rope_head_dim"]
    qk_norm: bool = option(
        False, "normalise the queries and keys of every head by RMSNorm", words="normalised queries and keys"
    )
    non_linearity: str = BLOCK["non_linearity"]
    moe: bool = BLOCK["moe"]
    n_exp: int | None = BLOCK["n_exp"]
    n_shared: int | None = BLOCK["n_shared"]
    n_act: int | None = BLOCK["n_act"]
    aux_free: bool = BLOCK["aux_free"]
    coeff: float | None = BLOCK["coeff"]
    alpha: float | None = BLOCK["alpha"]
    gamma: float | None = BLOCK["gamma"]
    up_dim: int | None = BLOCK["up_dim"]
    tie_embeddings: bool = option(
        False, "one matrix for the token embedding and the output layer", words="one matrix for input and output"
    )
    head_bias: bool = option(False, "give the output layer a bias", words="a bias of the output layer")
    layer_configs: str | None = option(None, "the blocks one by one: a JSON list of objects, one for each layer")

    def __post_init__(self) -> None:
        check_fields(self)
        _check_model(asdict(self), self.blocks)
        if self.layer_configs is not None and len(self.blocks) != self.n_layer:
            raise ValueError(f"n_layer is {self.n_layer}, and layer_configs describes {len(self.blocks)} layers")
        if self.pos_emb == "sin" and self.n_embd % 2:
            raise ValueError(f"pos_emb sin takes pairs of sine and cosine, and n_embd {self.n_embd} is odd")

    @cached_property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The blocks of the model, one for each layer.

        Raises:
            ValueError: an option is missing, surplus or impossible.
        """
        blocks = _make_blocks(asdict(self), self.n_embd)
        return blocks if self.layer_configs is not None else blocks * self.n_layer

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build from the plain dict of `model_config.pth`; the six tutorial keys are required.

        Raises:
            ValueError: a missing, unknown or impossible key, by name.
        """
        required = ("vocab_size", "n_embd", "n_head", "n_layer", "block_size", "dropout")
        missing = [key for key in required if key not in values]
        if missing:
            raise ValueError(f"the model configuration lacks {', '.join(missing)}")
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"the model configuration has an unknown key: {', '.join(map(repr, unknown))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# The options that `layer_configs` gives for each layer. (`n_head` stays in every file, and is not looked at then.)
PER_LAYER = tuple(name for name in BLOCK if name != "n_head")
_DEFAULT = {item.name: item.default for item in fields(ModelConfig)}


def check_choices(values: dict[str, Any]) -> None:
    """Raise ValueError for options of `ModelConfig` that contradict each other whatever its sizes will be.

    Args:
        values: those that are given; others have their defaults.
    """
    values = {**_DEFAULT, **values}
    _check_model(values, _make_blocks(values, None))


def _check_model(values: dict[str, Any], blocks: tuple[BlockConfig, ...]) -> None:
    if values["qk_norm"] and any(block.attn == "mla" for block in blocks):
        raise ValueError(
            "qk_norm True has no meaning with attn mla, whose latents are normalised already; give --no_qk_norm"
        )


def _make_blocks(values: dict[str, Any], n_embd: int | None) -> tuple[BlockConfig, ...]:
    """The blocks that `layer_configs` lists, or the one that all layers are."""
    if values["layer_configs"] is None:
        return (_uniform_block(values, n_embd),)
    for name in PER_LAYER:
        if values[name] not in (None, _DEFAULT[name]):
            raise ValueError(
                f"{name} {values[name]} beside layer_configs, which say it for each layer; give it in one place only"
            )
    return parse_layers(values["layer_configs"], n_embd, values["pos_emb"])


def _uniform_block(values: dict[str, Any], n_embd: int | None) -> BlockConfig:
    """The one block that all layers are, with defaults where an option has one."""
    pos_emb = values["pos_emb"]
    known = known_keys(values, pos_emb)
    block = {name: values[name] for name in BLOCK if values[name] is not None}
    if not block["aux_free"] and "aux_free" not in known:
        del block["aux_free"]  # a choice that was not made
    block |= {name: DEFAULTS[name] for name in DEFAULTS if name in known and name not in block}
    n_act = values["n_act"] if values["moe"] else None
    block.setdefault("up_dim", default_up_dim(n_embd or 1, values["non_linearity"], n_act))
    return make_block(block, n_embd, pos_emb)


def read_jsonl(text: str) -> str:
    """The content of a `layer_configs_jsonl` file, one JSON object a line, as the value of `layer_configs`.

    Raises:
        ValueError: a line is not a JSON object, by its number.
    """
    layers = []
    # Not splitlines, which also splits at characters that may stand in a JSON text.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if not line.strip():
            continue
        try:
            layer = parse_json(line)
        except ValueError as error:
            raise ValueError(f"line {number} {shown(line.strip())} is not JSON: {error}") from None
        if not isinstance(layer, dict):
            raise ValueError(f"line {number} {shown(line.strip())} is not a JSON object")
        layers.append(layer)
    if not layers:
        raise ValueError("it has no lines; give a JSON object for each layer")
    return json.dumps(layers)


CHARACTERS_PER_TOKEN = 8  # more than a token stands for in any ordinary text


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = option(
        32, "windows of text per step", question="Enter batch size (e.g., 32): ", low=1, high=1_048_576
    )
    learning_rate: float = option(
        0.0003,
        "peak learning rate, on AdamW's scale",
        question="Enter learning rate (e.g., 0.0003): ",
        low=1e-12,
        high=10.0,
    )
    max_epochs: int = option(
        5,
        "times the whole text is read",
        question="Enter number of epochs (e.g., 5): ",
        low=1,
        high=1_000_000,
    )
    dataset_path: str = option(
        "input.txt",
        "the text to learn from: a file, a folder, a glob, several with commas, or a dataset by name",
        question="Enter path to text dataset (e.g., 'input.txt'): ",
    )
    encoding: str = option("utf-8", "encoding of files of text")
    text_field: str | None = option(
        None, "key or column of the text in .jsonl, .csv, .parquet and datasets (default: text)"
    )
    tokenizer: str = option(
        "char",
        "char: single characters; bpe: pieces of words, learnt from the text; or a pretrained tokenizer, by its folder "
        "or its name on the Hugging Face hub, such as gpt2",
    )
    vocab_size: int | None = option(
        None, "tokens to learn for bpe (default: what llm_model.py was told)", low=1, high=10_000_000
    )
    max_chars: int | None = option(None, "characters of the text to use at most", low=1, high=10**15)
    max_tokens: int | None = option(None, "tokens of the text to use at most", low=2, high=10**15)
    minutes: float | None = option(None, "train for this long instead of max_epochs", low=0.001, high=525_600.0)
    max_iters: int | None = option(None, "train for so many steps instead of max_epochs", low=1, high=10**12)
    total_batch_size: str | None = option(
        None, "tokens of a step, such as 2**15, read in several batches of batch_size windows (default: one batch)"
    )
    optimizer: str = option(
        "muon",
        "what follows the gradient; muon: for the matrices inside, AdamW for the rest",
        choices=("muon", "adamw"),
    )
    schedule: str = option(
        "cosine",
        "how the learning rate comes down after it has risen",
        choices=("cosine", "linear", "wsd", "constant"),
    )
    warmup_steps: int | None = option(
        None, "steps in which the learning rate rises (default: 3 % of the training)", low=0, high=10**12
    )
    min_lr: float | None = option(None, "last learning rate (default: a tenth of the highest)", low=0.0, high=10.0)
    weight_decay: float = option(
        0.1, "how much the matrices inside shrink in a step, times the learning rate", low=0.0, high=10.0
    )
    grad_clip: float = option(1.0, "longest gradient; longer ones are shortened; 0: none are", low=0.0, high=1e9)
    ema: float = option(
        0.98,
        "how much of the averaged weights stays in a step; the average is the model; 0: no average",
        low=0.0,
        high=0.9999,
    )
    eval_interval: int | None = option(
        None, "steps between two looks at the held-out text (default: each epoch; or 20 in all)", low=1, high=10**12
    )
    patience: int = option(
        5, "reports without a new lowest held-out loss after which the training ends; 0: never", low=0, high=10**12
    )
    ckpt_interval: int | None = option(
        None, "steps between two checkpoints (default: a minute, or more if they take long)", low=1, high=10**12
    )
    sample_tokens: int = option(
        100, "tokens of the text that the model writes at a report (0: none)", low=0, high=100_000
    )
    tracker: str = option(
        "none",
        "where figures go besides the files beside the model (pip install -r requirements-track.txt)",
        choices=("none", "tensorboard", "wandb"),
    )
    stride: int | None = option(
        None,
        "characters between the starts of two windows (default: block_size; 1 = overlapping windows)",
        low=1,
        high=1_048_576,
    )
    compile: bool = option(False, "compile the model before it trains, which takes a minute and pays on a GPU")
    act_recomp: bool = option(
        False, "compute activations again for the backward pass instead of keeping them: less memory, a third more time"
    )
    precision: str = option(
        "auto",
        "of products; auto: bfloat16 where that is clearly faster now",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int | None = option(None, "CPU threads (default: as many as are fastest now)", low=1, high=4096)
    strategy: str = option(
        "ddp",
        "with torchrun; ddp: each process has the whole model; fsdp: a part of every weight, for a model too large",
        choices=("ddp", "fsdp"),
    )
    seed: int = option(1337, "seed of weights, order and sample", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.vocab_size is not None and self.tokenizer != "bpe":
            raise ValueError(f"vocab_size {self.vocab_size} has no meaning with tokenizer {self.tokenizer}; take bpe")
        if self.minutes is not None and self.max_iters is not None:
            raise ValueError(f"minutes {self.minutes} and max_iters {self.max_iters} both end the training; give one")
        if self.min_lr is not None and self.min_lr > self.learning_rate:
            raise ValueError(f"min_lr {self.min_lr} is above learning_rate {self.learning_rate}; give a lower one")
        self._total_batch_size()
        if not self.tokenizer:
            raise ValueError("tokenizer is empty; give char, bpe, or the folder or name of a pretrained one")

    def accumulation(self, block_size: int, world_size: int = 1) -> int:
        """Batches of a step, of all processes together.

        Raises:
            ValueError: total_batch_size is no multiple of the tokens of a batch in each process.
        """
        batch = self.batch_size * block_size
        total = self._total_batch_size() or batch * world_size
        if total % (batch * world_size):
            each = f" in each of {world_size} processes" if world_size > 1 else ""
            nearest = max(1, round(total / (batch * world_size))) * batch * world_size
            raise ValueError(
                f"total_batch_size {self.total_batch_size} is no multiple of the {batch * world_size} tokens in a "
                f"batch of {self.batch_size} windows of {block_size}{each}; give {nearest}"
            )
        return total // batch

    def _total_batch_size(self) -> int | None:
        if self.total_batch_size is None:
            return None
        try:
            return parse_count(self.total_batch_size)
        except ValueError as error:
            raise ValueError(f"total_batch_size {shown(self.total_batch_size)} {error}") from None

    @property
    def most_characters(self) -> int | None:
        """Characters of the text to read at most, since a token stands for few; None: all."""
        per_token = 1 if self.tokenizer == "char" else CHARACTERS_PER_TOKEN
        bounds = [self.max_chars, self.max_tokens and self.max_tokens * per_token]
        return min(filter(None, bounds), default=None)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Build from a plain dict, ignoring what is not an option of training."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})
