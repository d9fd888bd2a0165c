"""The architecture that a person decides on (`ModelConfig`): a plain dataclass without torch.

Every field is a flag of step 1; those with a `question` are asked at the terminal. Adding an option is adding a field
here, or to `BlockConfig` and here if layers may differ in it, and using it where it matters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from custom_llm.cli.fields import check_fields, option
from custom_llm.config.block import BlockConfig, default_up_dim, defaults, known_keys, make_block
from custom_llm.config.layers import parse_layers

# The options of a block, which are the model's as well while all blocks are alike; else `layer_configs` says them.
BLOCK = {item.name: option(item.default, **item.metadata) for item in fields(BlockConfig)}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture. The first six fields are the tutorial's keys and enough on their own."""

    vocab_size: int = option(
        10_000, "tokens the model knows; training with characters takes as many as there are in the text instead",
        question="Enter vocabulary size (e.g., 10000 for small models): ", low=1, high=10_000_000,
    )  # fmt: skip
    n_embd: int = option(
        256, "width of the model", question="Enter embedding dimension (e.g., 256): ", low=1, high=65_536
    )
    n_head: int = option(
        8, "attention heads; n_embd is a multiple of it", question="Enter number of attention heads (e.g., 8): ",
        low=1, high=1024,
    )  # fmt: skip
    n_layer: int = option(  # the bound is LLAMA_MAX_LAYERS of llama.cpp
        6, "transformer blocks", question="Enter number of transformer layers (e.g., 6): ", low=1, high=512
    )
    block_size: int = option(
        128, "tokens the model sees at once", question="Enter max sequence length (e.g., 128): ", low=1, high=1_048_576
    )
    dropout: float = option(
        0.1, "share of activations dropped in training", question="Enter dropout rate (e.g., 0.1): ", low=0.0, high=0.99
    )
    pos_emb: str = option(
        "learn", "how the model knows positions: a learned table, sines, or rotations (RoPE)", words="positions",
        choices=("learn", "sin", "rope"),
    )  # fmt: skip
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
        if len(self.blocks) != self.n_layer:
            raise ValueError(f"n_layer is {self.n_layer}, and layer_configs describes {len(self.blocks)} layers")
        if self.pos_emb == "sin" and self.n_embd % 2:
            raise ValueError(f"pos_emb sin takes pairs of sine and cosine, and n_embd {self.n_embd} is odd")

    @cached_property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The blocks of the model, one for each layer; ValueError as by `make_block`."""
        blocks = _make_blocks(asdict(self), self.n_embd)
        return blocks if self.layer_configs is not None else blocks * self.n_layer

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build from the plain dict of `model_config.pth`; ValueError names a missing, unknown or impossible key."""
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


PER_LAYER = tuple(BLOCK)  # what `layer_configs` says for each layer
MODEL_DEFAULTS = {item.name: item.default for item in fields(ModelConfig)}


def meaningful(values: dict[str, Any]) -> set[str]:
    """The options of a model that have a meaning beside these; what is not among them has its default."""
    values = {**MODEL_DEFAULTS, **values}
    known = set(MODEL_DEFAULTS) - set(PER_LAYER)
    if values["layer_configs"] is not None:
        return known
    if values["attn"] == "mla":
        known.discard("qk_norm")
    return known | known_keys(values, values["pos_emb"])


def check_choices(values: dict[str, Any]) -> None:
    """Raise ValueError for options that contradict each other, or others' defaults, whatever the sizes will be."""
    _make_blocks({**MODEL_DEFAULTS, **values}, None)


def _make_blocks(values: dict[str, Any], n_embd: int | None) -> tuple[BlockConfig, ...]:
    """The blocks that `layer_configs` lists, or the one that all layers are, with defaults where an option has one."""
    pos_emb = values["pos_emb"]
    if values["layer_configs"] is None:
        known = known_keys(values, pos_emb)
        block = defaults(known) | {name: values[name] for name in BLOCK if values[name] is not None}
        if not block["aux_free"] and "aux_free" not in known:
            del block["aux_free"]  # a choice that was not made
        n_act = values["n_act"] if values["moe"] else None
        block.setdefault("up_dim", default_up_dim(n_embd or 1, values["non_linearity"], n_act))
        blocks: tuple[BlockConfig, ...] = (make_block(block, n_embd, pos_emb),)
    else:
        for name in PER_LAYER:  # but n_head stays in every file, and is not looked at
            if name != "n_head" and values[name] not in (None, MODEL_DEFAULTS[name]):
                raise ValueError(
                    f"{name} {values[name]} beside layer_configs, which say it for each layer; give it in one place "
                    "only"
                )
        blocks = parse_layers(values["layer_configs"], n_embd, pos_emb)
    if values["qk_norm"] and any(block.attn == "mla" for block in blocks):
        raise ValueError(
            "qk_norm True has no meaning with attn mla, whose latents are normalised already; give --no_qk_norm"
        )
    return blocks
