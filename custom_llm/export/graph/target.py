"""What a model can be exported as: something that computes graphs of some kinds, and has its own names for tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from custom_llm.export.graph.graph import Experts, FeedForward, Graph, Structure
from custom_llm.export.graph.rewrites.parts import Rewrite, usual_embeddings, usual_scale
from custom_llm.export.graph.tensor_names import Table

EITHER = (False, True)
ANY_WINDOW = ("no", "every layer", "some layers")
SWIGLU = ("silu", True)  # an activation, with a gate
REWRITTEN = ("relu", "relu2", "leaky_relu", "silu")  # activations that `rewrites` can express by another
# Fields about what no rewrite changes.
LASTING = {
    "positions", "attention", "qk_norm", "qk_norm_over", "attn_softcap", "window", "local_base", "partial_rotation",
    "rope_scaling", "latent_gain", "norm_place", "parallel", "logit_softcap", "scoring", "renormalized", "groups",
}  # fmt: skip


@dataclass(frozen=True)
class Accepts:
    """The structures that something computes; tuples hold what is possible (see `_facts`)."""

    norm: tuple[str, ...] = ("rms",)
    norm_bias: tuple[bool, ...] = (False,)
    positions: tuple[str, ...] = ("rope",)  # or "table"
    attention: tuple[str, ...] = ("heads",)  # or "latent"
    shared_keys: tuple[str, ...] = ("mha", "gqa", "mqa")
    qk_norm: tuple[bool, ...] = (False,)
    qk_norm_over: tuple[str, ...] = ("head",)
    attn_scaled: tuple[bool, ...] = (False,)  # scores by another factor than 1/√width
    attn_softcap: tuple[bool, ...] = (False,)
    window: tuple[str, ...] = ("no",)  # how many layers have one
    local_base: tuple[bool, ...] = (False,)  # whether these rotate by another base
    partial_rotation: tuple[bool, ...] = (False,)
    rope_scaling: tuple[str | None, ...] = (None,)
    latent_gain: tuple[bool, ...] = (False,)  # whether rotations make the rotary part of a latent head longer
    norm_place: tuple[str, ...] = ("before",)
    parallel: tuple[bool, ...] = (False,)
    embedding_scaled: tuple[bool, ...] = (False,)
    logit_softcap: tuple[bool, ...] = (False,)
    attn_bias: tuple[bool, ...] = (False,)
    out_bias: tuple[bool, ...] = (False,)
    equal_biases: tuple[bool, ...] = EITHER  # whether attention's are there if and only if its output's is
    square_heads: tuple[bool, ...] = EITHER  # whether the heads together are as wide as the model
    dense: Iterable[tuple[str, bool]] = ()  # activations of feed-forward layers; none: there are only experts
    dense_bias: tuple[bool, ...] = (False,)
    experts: Iterable[tuple[str, bool]] = ()  # activations of experts
    scoring: tuple[str, ...] = ("softmax",)
    renormalized: tuple[bool, ...] = EITHER  # not: one expert a token, weighed by its score as it is
    routed_scale: tuple[bool, ...] = (False,)  # whether it is another one than 1
    groups: tuple[bool, ...] = (False,)
    shared_expert: tuple[bool, ...] = (False,)
    selection_bias: tuple[bool, ...] = (False,)
    head_bias: tuple[bool, ...] = (False,)
    tied: tuple[bool, ...] = EITHER
    layers: str = "equal"  # or "dense first" (then experts), "any heads and widths", "any"

    def fits(self, s: Structure) -> bool:
        """Whether a structure is one of these."""
        return all(value in getattr(self, name) for name, value in _facts(s)) and self._fits_together(s)

    def may_fit(self, s: Structure) -> bool:
        """Whether `rewrites` could make a structure one of these; what they cannot change is looked at."""
        if len({(layer.attn.n_head, layer.attn.n_kv_heads) for layer in s.layers}) > 1 and self.layers[:3] != "any":
            return False
        return all(
            value in getattr(self, name)
            for name, value in _facts(s)
            if name in LASTING or (name in ("dense", "experts") and value[0] not in REWRITTEN)
        )

    def _fits_together(self, s: Structure) -> bool:
        """Whether layers differ only where they may; nothing has more than one activation."""
        if len({layer.ffn.activation for layer in s.layers}) > 1:
            return False
        if len({layer.attn.window for layer in s.layers} - {None}) > 1:
            return False
        if self.layers == "equal":
            return len({replace(layer, attn=replace(layer.attn, window=None)) for layer in s.layers}) == 1
        one_width = len({(layer.attn.head_dim, layer.attn.qk_norm) for layer in s.layers}) == 1
        if self.layers == "any heads and widths":
            return one_width and not s.mixtures
        if len(set(s.mixtures)) > 1 or len({ffn.width for ffn in s.dense}) > 1:
            return False
        if self.layers == "any":
            return one_width
        kinds = [isinstance(layer.ffn, Experts) for layer in s.layers]
        return len({layer.attn for layer in s.layers}) == 1 and kinds == sorted(kinds)


def _facts(s: Structure) -> Iterator[tuple[str, Any]]:
    """(field of `Accepts`, what a structure has of it), over all layers."""
    yield "positions", "rope" if s.n_positions is None else "table"
    for name in ("norm", "norm_bias", "head_bias", "tied", "norm_place", "parallel", "rope_scaling"):
        yield name, getattr(s, name)
    yield "embedding_scaled", s.embedding_scale != 1
    yield "logit_softcap", s.logit_softcap is not None
    windows = {layer.attn.window is not None for layer in s.layers}
    yield "window", ANY_WINDOW[2 if len(windows) > 1 else windows == {True}]
    yield "local_base", s.rope_base_local is not None and True in windows
    for layer in set(s.layers):
        a, ffn = layer.attn, layer.ffn
        yield "attention", "latent" if a.is_latent else "heads"
        yield "qk_norm", a.qk_norm
        yield "qk_norm_over", a.qk_norm_over
        yield "attn_scaled", a.scale is not None
        yield "attn_softcap", a.softcap is not None
        yield "partial_rotation", a.rotary_dim is not None
        yield "latent_gain", a.is_latent and s.rope.gain != 1
        yield "attn_bias", a.bias
        yield "out_bias", a.out_bias
        yield "equal_biases", a.bias == a.out_bias
        yield "square_heads", a.n_head * a.head_dim == s.width
        if not a.is_latent:
            yield "shared_keys", "mqa" if a.n_kv_heads == 1 < a.n_head else "mha" if a.n_kv_heads == a.n_head else "gqa"
        if isinstance(ffn, FeedForward):
            yield "dense", (ffn.activation, ffn.gated)
            yield "dense_bias", ffn.bias
        else:
            yield "experts", (ffn.activation, ffn.gated)
            yield "scoring", ffn.scoring
            yield "renormalized", ffn.renormalized
            yield "routed_scale", ffn.routed_scale != 1
            yield "groups", ffn.n_group > 1 and ffn.topk_group < ffn.n_group
            yield "shared_expert", bool(ffn.shared_width)
            yield "selection_bias", ffn.has_selection_bias


# Options of `Accepts`: GPT-2's block but for positions and activation; biases in all of attention or nowhere in it.
CLASSIC = dict(
    norm=("layer",), norm_bias=(True,), attn_bias=(True,), out_bias=(True,), square_heads=(True,), dense_bias=(True,)
)
MAYBE_BIASED = dict(attn_bias=EITHER, out_bias=EITHER, equal_biases=(True,))


@dataclass(frozen=True)
class Target:
    """A class of Hugging Face, or a graph of llama.cpp."""

    name: str  # what it is called there
    accepts: Accepts
    names: Table  # of its tensors
    steps: tuple[Rewrite, ...]  # exact rewrites that bring models nearer to what it computes

    def prepare(self, graph: Graph) -> Graph | None:
        """The graph as this computes it, or None if it cannot."""
        if not self.accepts.may_fit(graph.s):
            return None
        if True not in self.accepts.attn_scaled:
            graph = usual_scale(graph)
        if True not in self.accepts.embedding_scaled:
            graph = usual_embeddings(graph)
        for step in self.steps:
            graph = step(graph)
        return graph if self.accepts.fits(graph.s) else None


SomeTarget = TypeVar("SomeTarget", bound=Target)


def choose(targets: Iterable[SomeTarget], graph: Graph) -> tuple[SomeTarget, Graph] | None:
    """The first target that computes what a graph computes, and the graph as it does, or None."""
    prepared = ((target, target.prepare(graph)) for target in targets)
    return next((found for found in prepared if found[1]), None)
