"""Which structures a Hugging Face class or a graph of llama.cpp can compute, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from custom_llm.export.graph.graph import Experts, FeedForward, Structure

EITHER = (False, True)
# (activation, with a gate)
SWIGLU = ("silu", True)
REWRITTEN = ("relu", "relu2", "leaky_relu", "silu")  # activations that `rewrites` can express by another


@dataclass(frozen=True)
class Accepts:
    """The structures that something computes; tuples hold what is possible."""

    norm: str = "rms"
    norm_bias: tuple[bool, ...] = (False,)
    positions: str = "rope"  # or "table"
    attention: str = "heads"  # or "latent"
    shared_keys: tuple[str, ...] = ("mha", "gqa", "mqa")
    qk_norm: tuple[bool, ...] = (False,)
    attn_bias: tuple[bool, ...] = (False,)
    out_bias: tuple[bool, ...] = (False,)
    square_heads: bool = False  # the heads together are as wide as the model
    dense: Iterable[tuple[str, bool]] = ()  # activations of feed-forward layers; none: there are only experts
    dense_bias: tuple[bool, ...] = (False,)
    equal_biases: bool = False  # attention's are there if and only if its output's is
    experts: Iterable[tuple[str, bool]] = ()  # activations of experts
    scoring: tuple[str, ...] = ("softmax",)
    shared_expert: tuple[bool, ...] = (False,)
    selection_bias: tuple[bool, ...] = (False,)
    single_choice: bool = True  # one expert a token, weighed by its score as it is
    head_bias: tuple[bool, ...] = (False,)
    tied: tuple[bool, ...] = EITHER
    layers: str = "equal"  # or "dense first" (then experts), "any heads and widths", "any"

    def fits(self, s: Structure) -> bool:
        """Whether a structure is one of these."""
        return all(self._rules(s))

    def may_fit(self, s: Structure) -> bool:
        """Whether `rewrites` could make a structure one of these; what they cannot change is looked at."""
        return all(self._lasting_rules(s))

    def _lasting_rules(self, s: Structure) -> Iterable[bool]:
        """About what no rewrite changes."""
        yield ("rope" if s.n_positions is None else "table") == self.positions
        heads = {(layer.attn.n_head, layer.attn.n_kv_heads) for layer in s.layers}
        yield len(heads) == 1 or self.layers.startswith("any")
        for layer in s.layers:
            a, ffn = layer.attn, layer.ffn
            yield a.is_latent == (self.attention == "latent")
            yield a.qk_norm in self.qk_norm
            possible = self.dense if isinstance(ffn, FeedForward) else self.experts
            changes = ffn.activation in REWRITTEN
            yield changes or (ffn.activation, ffn.gated) in possible
            if isinstance(ffn, Experts):
                yield ffn.scoring in self.scoring
                yield self.single_choice or ffn.renormalized

    def _rules(self, s: Structure) -> Iterable[bool]:
        yield from self._lasting_rules(s)
        yield s.norm == self.norm
        yield s.norm_bias in self.norm_bias
        yield s.head_bias in self.head_bias
        yield s.tied in self.tied
        for layer in s.layers:
            a, ffn = layer.attn, layer.ffn
            if not a.is_latent:
                sharing = "mqa" if a.n_kv_heads == 1 < a.n_head else "mha" if a.n_kv_heads == a.n_head else "gqa"
                yield sharing in self.shared_keys
            yield a.bias in self.attn_bias
            yield a.out_bias in self.out_bias
            yield not self.equal_biases or a.bias == a.out_bias
            yield not self.square_heads or a.n_head * a.head_dim == s.width
            if isinstance(ffn, FeedForward):
                yield (ffn.activation, ffn.gated) in self.dense
                yield ffn.bias in self.dense_bias
            else:
                yield (ffn.activation, ffn.gated) in self.experts
                yield bool(ffn.shared_width) in self.shared_expert
                yield ffn.has_selection_bias in self.selection_bias
        yield self._fits_together(s)

    def _fits_together(self, s: Structure) -> bool:
        """Whether layers differ only where they may; nothing has more than one activation."""
        if len({layer.ffn.activation for layer in s.layers}) > 1:
            return False
        if self.layers == "equal":
            return len(set(s.layers)) == 1
        mixtures = {layer.ffn for layer in s.layers if isinstance(layer.ffn, Experts)}
        dense = {layer.ffn for layer in s.layers if isinstance(layer.ffn, FeedForward)}
        one_width = len({(layer.attn.head_dim, layer.attn.qk_norm) for layer in s.layers}) == 1
        if self.layers == "any heads and widths":
            return one_width and not mixtures
        if len(mixtures) > 1 or len({ffn.width for ffn in dense}) > 1:
            return False
        if self.layers == "any":
            return one_width
        kinds = [isinstance(layer.ffn, Experts) for layer in s.layers]
        return len({layer.attn for layer in s.layers}) == 1 and kinds == sorted(kinds)


# GPT-2's block but for positions and activation: options of `Accepts`.
CLASSIC = dict(
    norm="layer", norm_bias=(True,), attn_bias=(True,), out_bias=(True,), square_heads=True, dense_bias=(True,)
)
