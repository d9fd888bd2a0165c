"""A model as what it computes: sizes, kinds and tensors, under one set of names, ready to be rewritten and renamed.

Export goes  our model → Graph → (rewrites) → Graph → names of Hugging Face or of GGUF.  The names of a Graph's tensors:

    token_embedding.weight  position_embedding.weight  ln_f.*  head.*                      (* is weight or bias)
    blocks.N.{ln1,ln1_after,ln2,ln2_after}.*                                               norms before, norms after
    blocks.N.attn.{query,key,value,proj}.*  blocks.N.attn.{query_norm,key_norm}.weight
    blocks.N.attn.{query_down,kv_down}.*  blocks.N.attn.{query_up,kv_norm,key_up,value_up}.weight    latent attention
    blocks.N.ffn.{gate,up,down}.*                                          a dense layer; gate if gated
    blocks.N.ffn.router.weight  blocks.N.ffn.selection_bias  blocks.N.ffn.{experts,shared}.{gate,up,down}.weight
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch

from custom_llm.config.block import GATED, BlockConfig
from custom_llm.config.model import ModelConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.model.layers import Rope

# Rewriting as many takes less time than the first operation on the meta device, which imports a compiler.
FEW_NUMBERS = 50_000_000
GATE_ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}


@dataclass(frozen=True)
class Attention:
    """Heads, each `head_dim` wide, and how many of them have keys and values of their own."""

    n_head: int
    n_kv_heads: int
    head_dim: int
    bias: bool  # of query, key and value (latent: of the projections that read the input)
    out_bias: bool
    qk_norm: bool = False
    qk_norm_over: str = "head"  # or all heads together
    scale: float | None = None  # of scores; None: 1/√(width of queries)
    softcap: float | None = None  # bound of scores
    window: int | None = None  # tokens that are looked back on
    rotary_dim: int | None = None  # numbers of a head that rotate; None: all
    # Latent attention only: widths of the latents (q_latent 0: queries are not compressed) and of the rotary head.
    q_latent: int | None = None
    kv_latent: int | None = None
    rope_dim: int | None = None

    @property
    def is_latent(self) -> bool:
        return self.kv_latent is not None


@dataclass(frozen=True)
class FeedForward:
    """down(activation(up(x))), or down(activation(gate(x)) · up(x))."""

    width: int
    activation: str
    gated: bool
    bias: bool  # of all its matrices


@dataclass(frozen=True)
class Experts:
    """`n` feed-forward layers without biases, `n_chosen` for each token, and one that is always on (0: none)."""

    n: int
    n_chosen: int
    width: int
    activation: str
    gated: bool
    scoring: str  # softmax or sigmoid
    shared_width: int
    has_selection_bias: bool
    norm_topk: bool | None = None  # None: if several are chosen
    routed_scale: float = 1.0  # of what the routed ones give
    n_group: int = 1
    topk_group: int = 1  # groups that the chosen ones are from

    @property
    def renormalized(self) -> bool:
        """Whether the chosen experts' scores are divided by their sum (see `MixtureOfExperts`)."""
        return self.n_chosen > 1 or self.n == 1 if self.norm_topk is None else self.norm_topk


@dataclass(frozen=True)
class Layer:
    attn: Attention
    ffn: FeedForward | Experts


@dataclass(frozen=True)
class Structure:
    """All of a graph but its tensors."""

    vocab_size: int
    width: int
    block_size: int  # tokens the model was trained to see at once
    norm: str  # layer or rms
    norm_bias: bool
    eps: float
    n_positions: int | None  # rows of the table of positions; None where queries and keys rotate
    rope_base: float
    layers: tuple[Layer, ...]
    tied: bool
    head_bias: bool
    dropout: float  # in training; of no meaning to what the model computes
    blank_biases: bool = False  # all biases are zeros, put there because a class asks for them
    rope_base_local: float | None = None  # in layers with a window; None: the same
    rope_scaling: str | None = None  # linear, llama3 or yarn
    rope_factor: float | None = None
    rope_original: int | None = None
    rope_attention: float | None = None
    norm_place: str = "before"  # after, or both
    parallel: bool = False  # attention and feed-forward layer read the same input
    embedding_scale: float = 1.0
    logit_softcap: float | None = None

    @property
    def rope(self) -> Rope:
        """The rotations of layers without a window."""
        return Rope(self.rope_base, self.rope_scaling, self.rope_factor, self.rope_original, self.rope_attention)

    @property
    def first(self) -> Layer:
        return self.layers[0]

    @property
    def dense(self) -> list[FeedForward]:
        """The feed-forward layers that are no experts."""
        return [layer.ffn for layer in self.layers if isinstance(layer.ffn, FeedForward)]

    @property
    def mixtures(self) -> list[Experts]:
        return [layer.ffn for layer in self.layers if isinstance(layer.ffn, Experts)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Structure:
        """The inverse of `to_dict`. Raises TypeError or KeyError for other dicts."""
        layers = tuple(
            Layer(Attention(**layer["attn"]), (Experts if "n" in layer["ffn"] else FeedForward)(**layer["ffn"]))
            for layer in values["layers"]
        )
        return cls(**{**values, "layers": layers})


Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Graph:
    """A structure and its tensors (on the meta device, when only the shapes are of interest)."""

    s: Structure
    tensors: Tensors

    @classmethod
    def of_model(cls, model: GPTLanguageModel) -> Graph:
        """What a model computes, in float32."""
        config = model.config
        tensors = {_canonical(name, config): x.detach().float() for name, x in model.state_dict().items()}
        if config.tie_embeddings:
            del tensors["head.weight"]
        if config.pos_emb == "sin":
            tensors["position_embedding.weight"] = model.position_embedding.table.float()
        return cls(_structure(config), tensors)

    @classmethod
    def of_config(cls, config: ModelConfig) -> Graph:
        """The graph of a model that is not there yet, with zeros or, if that were many, no memory for its tensors."""
        outline = cls.of_model(GPTLanguageModel.outline(config))
        if sum(x.numel() for x in outline.tensors.values()) > FEW_NUMBERS:
            return outline
        return cls(outline.s, {name: torch.zeros(x.shape) for name, x in outline.tensors.items()})

    def to_model(self, config: ModelConfig) -> Tensors:
        """The state dict of a model of `config`, which computes this: the inverse of `of_model`."""
        s = _structure(config)
        if self.s != replace(s, dropout=self.s.dropout):
            raise ValueError("its tensors are of another structure than its configuration")
        tensors = {_state_name(name, config): x for name, x in self.tensors.items()}
        if config.pos_emb == "sin":
            del tensors["position_embedding.weight"]
        if config.tie_embeddings:
            tensors["head.weight"] = tensors["token_embedding.weight"]
        return tensors

    @cached_property
    def head_weight(self) -> torch.Tensor:
        """(vocab_size, width), also where it is the table of embeddings."""
        return self.tensors["token_embedding.weight" if self.s.tied else "head.weight"]

    def change(self, tensors: Tensors, **fields: Any) -> Graph:
        """The graph with some tensors added or replaced, and some fields of its structure."""
        return Graph(replace(self.s, **fields), {**self.tensors, **tensors})

    def without(self, *names: str) -> Graph:
        """The graph without these tensors."""
        return Graph(self.s, {name: x for name, x in self.tensors.items() if name not in names})

    def map(self, pattern: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
        """`function` of every tensor whose whole name matches the regular expression `pattern`."""
        return {name: function(x) for name, x in self.tensors.items() if re.fullmatch(pattern, name)}


def join(parts: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """torch.cat, which on the meta device imports a compiler for seconds."""
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    whole = parts[0].new_empty(shape)
    for piece, part in zip(whole.split([part.shape[dim] for part in parts], dim), parts, strict=True):
        piece.copy_(part)
    return whole


def _canonical(name: str, config: ModelConfig) -> str:
    """The graph's name of a tensor of the model."""
    match = re.match(r"(blocks\.(\d+)\.ffn\.)(.*)", name)
    if not match:
        return name
    prefix, layer, rest = match[1], int(match[2]), match[3]
    rest = re.sub(r"(^|\.)0\.", r"\1up.", rest)
    rest = re.sub(r"(^|\.)2\.", r"\1down.", rest)
    if config.blocks[layer].moe and rest in ("gate", "up", "down"):
        rest = f"experts.{rest}.weight"
    return prefix + rest


def _state_name(name: str, config: ModelConfig) -> str:
    """The model's name of a tensor of the graph: the inverse of `_canonical`."""
    match = re.match(r"(blocks\.(\d+)\.ffn\.)(.*)", name)
    if not match:
        return name
    prefix, layer, rest = match[1], int(match[2]), match[3]
    block = config.blocks[layer]
    if rest.startswith("experts."):
        rest = rest.split(".")[1]
    elif block.non_linearity not in GATED:
        rest = re.sub(r"(^|\.)up\.", r"\g<1>0.", rest)
        rest = re.sub(r"(^|\.)down\.", r"\g<1>2.", rest)
    return prefix + rest


def _structure(config: ModelConfig) -> Structure:
    c = config
    return Structure(
        vocab_size=c.vocab_size,
        width=c.n_embd,
        block_size=c.block_size,
        norm=c.norm,
        norm_bias=c.bias and c.norm == "layer",
        eps=c.norm_eps,
        n_positions=None if c.pos_emb == "rope" else c.block_size,
        rope_base=c.rope_base,
        layers=tuple(Layer(_attention(c, block, i), _feed_forward(c, block)) for i, block in enumerate(c.blocks)),
        tied=c.tie_embeddings,
        head_bias=c.head_bias,
        dropout=c.dropout,
        rope_base_local=c.rope_base_local,
        rope_scaling=c.rope_scaling,
        rope_factor=c.rope_factor,
        rope_original=c.rope_original,
        rope_attention=c.rope_attention,
        norm_place=c.norm_place,
        parallel=c.parallel_residual,
        embedding_scale=c.n_embd**0.5 if c.scale_embeddings else 1.0,
        logit_softcap=c.logit_softcap,
    )


def _attention(config: ModelConfig, block: BlockConfig, layer: int) -> Attention:
    c, width, window = config, config.head_width(block), config.window(layer)
    latents = dict(q_latent=block.q_latent_dim, kv_latent=block.kv_latent_dim, rope_dim=block.rope_head_dim or 0)
    return Attention(
        block.n_head, block.kv_heads, width, c.bias if c.qkv_bias is None else c.qkv_bias, c.bias, c.qk_norm,
        c.qk_norm_over, scale=c.attn_scale, softcap=c.attn_softcap,
        window=window if window is not None and window < c.block_size else None,
        rotary_dim=c.rotary_dim if c.rotary_dim != width else None, **(latents if block.attn == "mla" else {}),
    )  # fmt: skip


def _feed_forward(config: ModelConfig, block: BlockConfig) -> FeedForward | Experts:
    gated = block.non_linearity in GATED
    activation = GATE_ACTIVATIONS.get(block.non_linearity, block.non_linearity)
    if not block.moe:
        return FeedForward(block.up_dim, activation, gated, config.bias)
    return Experts(
        n=block.n_routed,
        n_chosen=block.n_chosen,
        width=block.up_dim,
        activation=activation,
        gated=gated,
        scoring="sigmoid" if block.aux_free else "softmax",
        shared_width=block.n_shared * block.up_dim,
        has_selection_bias=block.aux_free,
        norm_topk=block.norm_topk,
        routed_scale=1.0 if block.routed_scale is None else block.routed_scale,
        n_group=block.n_group or 1,
        topk_group=block.topk_group or block.n_group or 1,
    )
