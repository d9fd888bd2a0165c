"""What a Hugging Face class or a graph of llama.cpp can compute, as data, and whether a model is of that kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from custom_llm.export.graph import Experts, FeedForward, Structure

EITHER = (False, True)
# (activation, with a gate)
SWIGLU = ("silu", True)
REWRITTEN = ("relu", "relu2", "leaky_relu", "silu")  # activations that `rewrites` can express by another


@dataclass(frozen=True)
class Kind:
    """The structures that something computes. Tuples and sets hold what is possible."""

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

    def refuses(self, s: Structure) -> str | None:
        """Why a structure is not of this kind, or None."""
        return next((reason for holds, reason in self._rules(s) if not holds), None)

    def is_out_of_reach(self, s: Structure) -> bool:
        """Whether a structure will not be of this kind whatever `rewrites` make of it."""
        return not all(holds for holds, _ in self._lasting_rules(s))

    def _lasting_rules(self, s: Structure) -> Iterable[tuple[bool, str]]:
        """About what no rewrite changes."""
        yield ("rope" if s.n_positions is None else "table") == self.positions, "positions"
        heads = {(layer.attn.n_head, layer.attn.n_kv_heads) for layer in s.layers}
        yield len(heads) == 1 or self.layers.startswith("any"), "layers that differ"
        for layer in s.layers:
            a, ffn = layer.attn, layer.ffn
            yield a.is_latent == (self.attention == "latent"), "attention"
            yield a.qk_norm in self.qk_norm, "qk_norm"
            possible = self.dense if isinstance(ffn, FeedForward) else self.experts
            changes = ffn.activation in REWRITTEN
            yield changes or (ffn.activation, ffn.gated) in possible, f"{ffn.activation} gated {ffn.gated}"
            if isinstance(ffn, Experts):
                yield ffn.scoring in self.scoring, ffn.scoring
                yield self.single_choice or ffn.renormalized, "a single chosen expert"

    def _rules(self, s: Structure) -> Iterable[tuple[bool, str]]:
        yield from self._lasting_rules(s)
        yield s.norm == self.norm, f"norm {s.norm}"
        yield s.norm_bias in self.norm_bias, "biases in norms"
        yield s.head_bias in self.head_bias, "head_bias"
        yield s.tied in self.tied, "tie_embeddings"
        for layer in s.layers:
            a, ffn = layer.attn, layer.ffn
            if not a.is_latent:
                sharing = "mqa" if a.n_kv_heads == 1 < a.n_head else "mha" if a.n_kv_heads == a.n_head else "gqa"
                yield sharing in self.shared_keys, sharing
            yield a.bias in self.attn_bias, "biases in attention"
            yield a.out_bias in self.out_bias, "a bias on attention's output"
            yield not self.equal_biases or a.bias == a.out_bias, "biases in a part of attention"
            yield not self.square_heads or a.n_head * a.head_dim == s.width, "heads"
            if isinstance(ffn, FeedForward):
                yield (ffn.activation, ffn.gated) in self.dense, f"{ffn.activation} gated {ffn.gated}"
                yield ffn.bias in self.dense_bias, "biases in feed-forward layers"
            else:
                yield from self._expert_rules(ffn)
        yield self._fits_together(s), "layers that differ"

    def _expert_rules(self, m: Experts) -> Iterable[tuple[bool, str]]:
        yield (m.activation, m.gated) in self.experts, f"experts of {m.activation}"
        yield bool(m.shared_width) in self.shared_expert, "shared experts"
        yield m.has_selection_bias in self.selection_bias, "a bias on the choice of experts"

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
