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
    head_dim: int | None = option(None, "width of a head (default: n_embd / n_head)", low=2, high=1024)
    qkv_bias: bool | None = option(None, "biases of queries, keys and values (default: as --bias)")
    qk_norm: bool = option(
        False, "normalise the queries and keys of every head by RMSNorm", words="normalised queries and keys"
    )
    qk_norm_over: str = option(
        "head", "normalise queries and keys head by head, or all heads together", choices=("head", "all")
    )
    attn_scale: float | None = option(
        None, "what attention's scores are multiplied by (default: 1 / root of the head's width)", low=1e-6, high=100.0
    )
    attn_softcap: float | None = option(
        None, "bound of attention's scores, c tanh(score / c) (default: none)", low=0.01, high=1e6
    )
    sliding_window: int | None = option(
        None, "tokens that a layer looks back on, itself included (default: all)", low=1, high=1_048_576
    )
    full_every: int | None = option(
        None, "with a sliding window, each so many-th layer sees everything all the same (default: none does)",
        low=2, high=512,
    )  # fmt: skip
    rope_base: float = option(10_000.0, "base of the wavelengths of rotations (RoPE)", low=1.0, high=1e12)
    rope_base_local: float | None = option(
        None, "the same in layers with a sliding window (default: as --rope_base)", low=1.0, high=1e12
    )
    rotary_dim: int | None = option(
        None, "numbers of a head that rotate; even (default: all of them)", low=2, high=1024
    )
    rope_scaling: str | None = option(
        None, "how rotations are stretched for a longer context (default: not)", choices=("linear", "llama3", "yarn")
    )
    rope_factor: float | None = option(None, "by how much (rope_scaling)", low=1.0, high=1e6)
    rope_original: int | None = option(
        None, "the context before that (rope_scaling llama3 and yarn)", low=1, high=1_048_576
    )
    rope_attention: float | None = option(
        None, "what rotated queries and keys are multiplied by (rope_scaling yarn; default: 1 + 0.1 ln factor)",
        low=0.01, high=100.0,
    )  # fmt: skip
    norm_place: str = option(
        "before", "where a layer normalises: before attention and feed-forward layers, after them, or both",
        choices=("before", "after", "both"),
    )  # fmt: skip
    norm_eps: float = option(1e-5, "what norms add to the mean square", low=1e-12, high=0.1)
    parallel_residual: bool = option(False, "attention and feed-forward layer side by side, both of the same input")
    scale_embeddings: bool = option(False, "multiply token embeddings by the root of n_embd")
    logit_softcap: float | None = option(
        None, "bound of the output, c tanh(output / c) (default: none)", low=0.01, high=1e6
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
    norm_topk: bool | None = BLOCK["norm_topk"]
    routed_scale: float | None = BLOCK["routed_scale"]
    n_group: int | None = BLOCK["n_group"]
    topk_group: int | None = BLOCK["topk_group"]
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
        _check_rotations(self)

    @cached_property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The blocks of the model, one for each layer; ValueError as by `make_block`."""
        blocks = _make_blocks(asdict(self), self.n_embd)
        return blocks if self.layer_configs is not None else blocks * self.n_layer

    def head_width(self, block: BlockConfig) -> int:
        """Width of a head of a block (mla: without its rotary part)."""
        return self.head_dim or self.n_embd // block.n_head

    def window(self, layer: int) -> int | None:
        """Tokens that a layer (from 0) looks back on, itself included; None for all."""
        sees_all = self.full_every is not None and (layer + 1) % self.full_every == 0
        return None if sees_all else self.sliding_window

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


# An option that has a meaning beside a choice only → that choice, an option and a value of it (None: any but None).
BESIDE: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("rope_base", "rotary_dim", "rope_scaling"), ("pos_emb", "rope")),
    "rope_factor": ("rope_scaling", None),
    "rope_original": ("rope_scaling", None),
    "rope_attention": ("rope_scaling", "yarn"),
    "qk_norm_over": ("qk_norm", True),
    "full_every": ("sliding_window", None),
    "rope_base_local": ("sliding_window", None),
}
NOT_LATENT = ("qk_norm", "attn_softcap", "sliding_window", "rotary_dim")  # what latent attention does not have


def without_meaning(values: dict[str, Any]) -> dict[str, str]:
    """Options that have no meaning beside the others → what they need."""
    found = {}
    for name, (choice, wanted) in BESIDE.items():
        if choice in found or (values[choice] is None if wanted is None else values[choice] != wanted):
            found[name] = choice if wanted in (None, True) else f"{choice} {wanted}"
    return found


def _check_together(values: dict[str, Any], is_latent: bool) -> None:
    """Raise ValueError for an option that has no meaning beside the others, or lacks one."""
    for name, needed in without_meaning(values).items():
        if values[name] != MODEL_DEFAULTS[name]:
            raise ValueError(f"{name} {values[name]} has no meaning here; it belongs to {needed}")
    for name in NOT_LATENT if is_latent else ():
        if values[name] != MODEL_DEFAULTS[name]:
            hint = "whose latents are normalised already; give --no_qk_norm" if name == "qk_norm" else "leave it out"
            raise ValueError(f"{name} {values[name]} has no meaning with attn mla, {hint}")
    scaling = values["rope_scaling"]
    for name in {None: (), "linear": ("rope_factor",)}.get(scaling, ("rope_factor", "rope_original")):
        if values[name] is None:
            raise ValueError(f"{name} is missing, which rope_scaling {scaling} needs")
    if values["parallel_residual"] and values["norm_place"] != "before":
        raise ValueError(f"parallel_residual True has its norms before; norm_place is {values['norm_place']}")


def _check_rotations(c: ModelConfig) -> None:
    """Raise ValueError where a head has no pairs to rotate."""
    for block in c.blocks if c.pos_emb == "rope" else ():
        width = c.head_width(block)
        if block.attn != "mla" and (c.rotary_dim or width) % 2:
            raise ValueError(f"pos_emb rope turns pairs, and {c.rotary_dim or width} numbers of a head are odd")
        if c.rotary_dim is not None and c.rotary_dim > width:
            raise ValueError(f"rotary_dim {c.rotary_dim} is more than the {width} numbers of a head")


PER_LAYER = tuple(BLOCK)  # what `layer_configs` says for each layer
MODEL_DEFAULTS = {item.name: item.default for item in fields(ModelConfig)}


def meaningful(values: dict[str, Any]) -> set[str]:
    """The options of a model that have a meaning beside these; what is not among them has its default."""
    values = {**MODEL_DEFAULTS, **values}
    known = set(MODEL_DEFAULTS) - set(PER_LAYER) - without_meaning(values).keys()
    if values["layer_configs"] is not None:
        return known
    if values["attn"] == "mla":
        known.difference_update((*NOT_LATENT, "qk_norm_over", "full_every", "rope_base_local"))
    return known | known_keys(values, values["pos_emb"])


def check_choices(values: dict[str, Any]) -> None:
    """Raise ValueError for options that contradict each other, or others' defaults, whatever the sizes will be."""
    _make_blocks({**MODEL_DEFAULTS, **values}, None)


def _make_blocks(values: dict[str, Any], n_embd: int | None) -> tuple[BlockConfig, ...]:
    """The blocks that `layer_configs` lists, or the one that all layers are, with defaults where an option has one."""
    pos_emb, head_dim = values["pos_emb"], values["head_dim"]
    if values["layer_configs"] is None:
        known = known_keys(values, pos_emb)
        block = defaults(known) | {name: values[name] for name in BLOCK if values[name] is not None}
        if not block["aux_free"] and "aux_free" not in known:
            del block["aux_free"]  # a choice that was not made
        n_act = values["n_act"] if values["moe"] else None
        block.setdefault("up_dim", default_up_dim(n_embd or 1, values["non_linearity"], n_act))
        blocks: tuple[BlockConfig, ...] = (make_block(block, n_embd, pos_emb, head_dim),)
    else:
        for name in PER_LAYER:  # but n_head stays in every file, and is not looked at
            if name != "n_head" and values[name] not in (None, MODEL_DEFAULTS[name]):
                raise ValueError(
                    f"{name} {values[name]} beside layer_configs, which say it for each layer; give it in one place "
                    "only"
                )
        blocks = parse_layers(values["layer_configs"], n_embd, pos_emb, head_dim)
    _check_together(values, any(block.attn == "mla" for block in blocks))
    return blocks
