"""What one transformer block is made of (`BlockConfig`), and the rules its options obey.

A model is a list of blocks. Without `layer_configs` all are alike; with it each is described by a JSON object:

    {"attn": "gqa", "n_head": 8, "n_kv_heads": 2, "moe": false, "up_dim": 512, "non_linearity": "swiglu"}

Which keys an object must have follows from its choices (`NEEDS`); others have no meaning there and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from custom_llm.cli.fields import check_value, option
from custom_llm.common.text import shown

ATTENTIONS = ("mha", "mqa", "gqa", "mla")
# With a gate, the feed-forward layer is down(activation(gate(x)) · up(x)) (Shazeer 2020, arXiv:2002.05202).
GATED = ("swiglu", "geglu", "reglu")
# No graph of llama.cpp computes these, and no rewrite makes them of others: such a model trains, but is no GGUF file.
TRAIN_ONLY = ("elu", "selu", "celu", "mish", "softplus", "hardswish", "tanh", "sigmoid")
PLAIN = ("gelu", "relu", "relu2", "silu", "leaky_relu", "gelu_erf", *TRAIN_ONLY)
NON_LINEARITIES = (*PLAIN, *GATED, "swish")  # swish is silu under its first name
BASIC = ("attn", "n_head", "moe", "up_dim", "non_linearity")
# A choice → the keys it needs. `rope_head_dim` is needed by mla only where positions are rotations.
NEEDS = {
    ("attn", "gqa"): ("n_kv_heads",),
    ("attn", "mla"): ("q_latent_dim", "kv_latent_dim", "rope_head_dim"),
    ("moe", True): ("n_exp", "n_shared", "n_act", "aux_free"),
    ("aux_free", True): ("alpha", "gamma"),
    ("aux_free", False): ("coeff",),
}
# Keys that may be left out where they have a meaning: None is the usual.
MAY = {("moe", True): ("norm_topk", "routed_scale"), ("aux_free", True): ("n_group", "topk_group")}
OPTIONAL = {key for keys in MAY.values() for key in keys}
DEFAULTS = {"n_shared": 0, "coeff": 0.01, "alpha": 0.0001, "gamma": 0.001}  # of what a choice needs


@dataclass(frozen=True)
class BlockConfig:
    """One block. Options that its choices do not need are None."""

    attn: str = option(
        "mha", "attention: every head its own keys, one for all, one per group, or latent", words="attention",
        choices=ATTENTIONS,
    )  # fmt: skip
    n_head: int = option(8, "attention heads; n_embd is a multiple of it", low=1, high=1024)
    n_kv_heads: int | None = option(
        None, "heads of keys and values (gqa); n_head is a multiple", words="number of key and value heads",
        low=1, high=1024,
    )  # fmt: skip
    q_latent_dim: int | None = option(
        None, "width queries are compressed to (mla); 0 leaves them as they are",
        words="width of compressed queries, 0 for none", low=0, high=65_536,
    )  # fmt: skip
    kv_latent_dim: int | None = option(
        None, "width keys and values are compressed to (mla)", words="width of compressed keys and values",
        low=1, high=65_536,
    )  # fmt: skip
    rope_head_dim: int | None = option(
        None, "width of the head that rotates (mla with rope); even", words="width of the rotating head",
        low=2, high=1024,
    )  # fmt: skip
    non_linearity: str = option(
        "gelu", f"activation of the feed-forward layer; no GGUF file with {', '.join(TRAIN_ONLY)}",
        words="activation", choices=NON_LINEARITIES,
    )  # fmt: skip
    moe: bool = option(False, "a mixture of experts in place of the feed-forward layer", words="mixture of experts")
    n_exp: int | None = option(  # the bound is LLAMA_MAX_EXPERTS of llama.cpp
        None, "experts in all (moe)", words="number of experts", low=2, high=512
    )
    n_shared: int | None = option(
        None, "experts that are always on (moe; default: 0)", words="number of shared experts", low=0, high=511
    )
    n_act: int | None = option(
        None, "experts active for a token, the shared ones included (moe)",
        words="number of active experts, shared ones included", low=1, high=512,
    )  # fmt: skip
    aux_free: bool = option(
        False, "balance the experts by a bias on their choice instead of a loss (moe)",
        words="balancing by a bias instead of a loss",
    )  # fmt: skip
    coeff: float | None = option(
        None, "weight of the load-balancing loss (moe; default: 0.01)", words="weight of the balancing loss",
        low=0.0, high=100.0,
    )  # fmt: skip
    alpha: float | None = option(
        None, "weight of the sequence loss (moe with aux_free; default: 0.0001)", words="weight of the sequence loss",
        low=0.0, high=100.0,
    )  # fmt: skip
    gamma: float | None = option(
        None, "step of the balancing bias (moe with aux_free; default: 0.001)", words="step of the balancing bias",
        low=0.0, high=1.0,
    )  # fmt: skip
    norm_topk: bool | None = option(
        None,
        "divide the chosen experts' scores by their sum (moe; default: if there are several)",
    )
    routed_scale: float | None = option(
        None, "what the routed experts give is multiplied by it (moe; default: 1)", low=0.01, high=1000.0,
    )  # fmt: skip
    n_group: int | None = option(
        None, "groups of experts, of which the best topk_group are chosen from (moe with aux_free; default: 1)",
        low=1, high=64,
    )  # fmt: skip
    topk_group: int | None = option(
        None, "groups that a token's experts are chosen from (moe with aux_free; default: all)",
        low=1, high=64,
    )  # fmt: skip
    up_dim: int | None = option(
        None, "width of the feed-forward layer, or of one expert (default: 4 n_embd, or 8/3 with a gate)",
        words="width of the feed-forward layer or expert", low=1, high=262_144,
    )  # fmt: skip

    @property
    def n_routed(self) -> int:
        """Experts the router chooses among."""
        return self.n_exp - self.n_shared

    @property
    def n_chosen(self) -> int:
        """Experts the router chooses for a token."""
        return self.n_act - self.n_shared

    @property
    def is_renormalized(self) -> bool:
        """Whether the chosen experts' scores are divided by their sum."""
        return self.n_chosen > 1 if self.norm_topk is None else self.norm_topk

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, whatever the kind of attention (mla: of its uncompressed form)."""
        return {"mqa": 1, "gqa": self.n_kv_heads}.get(self.attn, self.n_head)


_OPTIONS = {item.name: item for item in fields(BlockConfig)}


def make_block(values: dict[str, Any], n_embd: int | None, pos_emb: str, head_dim: int | None = None) -> BlockConfig:
    """The block of these options; ValueError where one is missing, None, without a meaning or impossible, by name.

    What depends on sizes is not checked while n_embd is not known (None). head_dim: of every head, None for
    n_embd / n_head.
    """
    for key, value in values.items():
        if key not in _OPTIONS:
            raise ValueError(f"there is no option {shown(key)} of a layer; there are {', '.join(_OPTIONS)}")
        if value is None:
            raise ValueError(f"{key} is null; leave it out, or give it a value")
        check_value(_OPTIONS[key], value)
    known = known_keys(values, pos_emb)
    for key in _OPTIONS:
        if key in known and key not in values and key not in OPTIONAL:
            needed_by = "every layer" if key in BASIC else _where(key)
            raise ValueError(f"{key} is missing, which {needed_by} needs")
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{key} {shown(value)} has no meaning here; it belongs to {_where(key)}")
    if values["non_linearity"] == "swish":
        values = {**values, "non_linearity": "silu"}
    block = BlockConfig(**values)
    if block.rope_head_dim is not None and block.rope_head_dim % 2:
        raise ValueError(f"rope_head_dim {block.rope_head_dim} is odd; rotations turn pairs")
    if n_embd is not None:
        _check_heads(block, n_embd, pos_emb, head_dim)
    if block.moe:
        _check_experts(block)
    return block


def known_keys(values: dict[str, Any], pos_emb: str) -> set[str]:
    """The keys that have a meaning in a block of these choices; all but OPTIONAL ones are needed there."""
    known = set(BASIC)
    for (choice, value), keys in (*NEEDS.items(), *MAY.items()):
        if choice in known and values.get(choice) == value:
            known.update(keys)
    if pos_emb != "rope":
        known.discard("rope_head_dim")
    return known


def defaults(known: set[str]) -> dict[str, Any]:
    """The defaults of these options, as far as they have one that depends on nothing."""
    return {name: value for name, value in DEFAULTS.items() if name in known}


def default_up_dim(n_embd: int, non_linearity: str, n_act: int | None) -> int:
    """The usual width: 4 n_embd; 8/3 of it with a gate, which adds a matrix; shared among n_act experts.

    >>> default_up_dim(256, "gelu", None), default_up_dim(256, "swiglu", None), default_up_dim(256, "swiglu", 2)
    (1024, 704, 352)
    """
    width = (8 * n_embd / 3 if non_linearity in GATED else 4 * n_embd) / (n_act or 1)
    return 4 * n_embd if width == 4 * n_embd else max(32, -(-int(width) // 32) * 32)


def _where(key: str) -> str:
    """In which blocks an option has a meaning."""
    if key == "rope_head_dim":
        return "attn mla with pos_emb rope"
    choice, value = next(choice for choice, keys in (*NEEDS.items(), *MAY.items()) if key in keys)
    return f"moe with aux_free {value}" if choice == "aux_free" else "moe" if choice == "moe" else f"{choice} {value}"


def _check_heads(b: BlockConfig, n_embd: int, pos_emb: str, head_dim: int | None) -> None:
    if b.attn == "gqa" and b.n_head % b.n_kv_heads:
        raise ValueError(f"n_head {b.n_head} is not a multiple of n_kv_heads {b.n_kv_heads}")
    if head_dim is not None:
        return
    if n_embd % b.n_head:
        raise ValueError(f"n_embd {n_embd} is not a multiple of n_head {b.n_head}")
    head_dim = n_embd // b.n_head
    if head_dim < 2:
        raise ValueError(f"n_embd {n_embd} is less than 2 for each of n_head {b.n_head}, llama.cpp's least")
    if pos_emb == "rope" and b.attn != "mla" and head_dim % 2:
        raise ValueError(
            f"pos_emb rope turns pairs, and heads of n_embd {n_embd} / n_head {b.n_head} = {head_dim} are odd"
        )


def _check_experts(b: BlockConfig) -> None:
    if b.n_act > b.n_exp:
        raise ValueError(f"n_act {b.n_act} is more than n_exp {b.n_exp}")
    if b.n_shared >= b.n_act:
        raise ValueError(f"n_shared {b.n_shared} is not less than n_act {b.n_act}, so the router has nothing to choose")
    if b.n_chosen >= b.n_routed:
        raise ValueError(
            f"n_act {b.n_act} of n_exp {b.n_exp} experts with n_shared {b.n_shared} are all of them; "
            "the router needs more to choose from"
        )
    groups = b.n_group or 1
    if b.n_routed % groups:
        raise ValueError(f"n_group {groups} does not divide the {b.n_routed} experts that the router chooses among")
    chosen = b.topk_group or groups
    if chosen > groups or b.n_chosen > chosen * (b.n_routed // groups):
        raise ValueError(
            f"topk_group {chosen} of n_group {groups} groups hold fewer experts than the {b.n_chosen} to choose"
            if chosen <= groups
            else f"topk_group {chosen} is more than n_group {groups}"
        )
    if groups > 1 and b.n_routed // groups < 2:
        raise ValueError(f"n_group {groups} leaves groups of one expert; a group is judged by its two best")
