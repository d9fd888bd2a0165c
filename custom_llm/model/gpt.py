"""The GPT: embeddings, blocks, output layer, loss and sampling.

What a model can be made of, by its configuration; a variant is a class or function and an entry in a table:
    ATTENTIONS            keys and values for each head (mha), for a group (gqa), for all (mqa), or latent (mla)
    ACTIVATIONS, GATES    feed-forward layers of two matrices, or of three where one is a gate; also as mixtures of
                          experts (moe), some of which may be shared
    NORMS                 LayerNorm or RMSNorm, before attention and feed-forward layers, after them or both, and at the
                          end
    POSITIONS             a learned table, sines, or rotations inside attention (RoPE)
and of biases or none, normalised queries and keys, one matrix for input and output, a description for each block.

The state dict of the classic model has the tutorial's names:
    token_embedding, position_embedding                       .weight
    blocks.N.ln1, blocks.N.attn.{key,query,value,proj},
    blocks.N.ln2, blocks.N.ffn.{0,2}, ln_f                    .weight .bias
    head                                                      .weight (and .bias with head_bias)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from custom_llm.config.block import BlockConfig
from custom_llm.config.model import ModelConfig
from custom_llm.model.attention import Cache, LayerCache, MultiHeadSelfAttention
from custom_llm.model.experts import MixtureOfExperts
from custom_llm.model.feed_forward import make_feed_forward
from custom_llm.model.latent_attention import MultiHeadLatentAttention
from custom_llm.model.layers import EPS, NORMS, Sinusoids
from custom_llm.model.loss import NOT_TRAINED_ON, linear_cross_entropy

STD = 0.02  # of first weights
# Matrices whose products are added to the residual stream.
INTO_RESIDUAL = ("attn.proj.weight", "ffn.2.weight", "down.weight", "ffn.down", "shared.2.weight")

ATTENTIONS: dict[str, Callable[[ModelConfig, BlockConfig, int], nn.Module]] = {
    "mha": MultiHeadSelfAttention.of,
    "mqa": MultiHeadSelfAttention.of,
    "gqa": MultiHeadSelfAttention.of,
    "mla": MultiHeadLatentAttention,
}
# What is added to the embeddings, made from block_size and n_embd.
POSITIONS: dict[str, Callable[[int, int], nn.Module | None]] = {
    "learn": nn.Embedding,
    "sin": Sinusoids,
    "rope": lambda n_positions, width: None,  # attention rotates
}


class TransformerBlock(nn.Module):
    """attn(x, cache) and ffn(x), each added to x; without further parts, GPT-2's pre-norm block (Radford et al. 2019).

    Args:
        norm: makes a norm; what it is is `NORMS`' business.
        norm_place: before attn and ffn, after them (OLMo 2, arXiv:2501.00656), or both (Gemma 2, arXiv:2408.00118).
        parallel: attn and ffn read the same x (GPT-J, GPT-NeoX, arXiv:2204.06745).
    """

    def __init__(
        self, n_embd: int, n_head: int, block_size: int, dropout: float, *, attn: nn.Module | None = None,
        ffn: nn.Module | None = None, norm: Callable[[], nn.Module] | None = None, norm_place: str = "before",
        parallel: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        norm = norm or (lambda: NORMS["layer"](n_embd, True, EPS))
        self.parallel = parallel
        is_before, is_after = norm_place != "after", norm_place != "before"
        self.ln1 = norm() if is_before else None
        self.attn = attn or MultiHeadSelfAttention(n_embd, n_head, block_size, dropout)
        self.ln1_after = norm() if is_after else None
        self.ln2 = norm() if is_before else None
        self.ffn = ffn or make_feed_forward(n_embd, 4 * n_embd, "gelu", dropout, bias=True)
        self.ln2_after = norm() if is_after else None

    def forward(self, x: torch.Tensor, cache: LayerCache | None = None) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd)"""
        attended = self.attn(x if self.ln1 is None else self.ln1(x), cache)
        attended = attended if self.ln1_after is None else self.ln1_after(attended)
        if self.parallel:
            return x + attended + self.ffn(self.ln2(x))
        x = x + attended
        fed = self.ffn(x if self.ln2 is None else self.ln2(x))
        return x + (fed if self.ln2_after is None else self.ln2_after(fed))


def make_block(config: ModelConfig, block: BlockConfig, layer: int) -> TransformerBlock:
    """The block that `block` describes, number `layer` of a model that `config` describes."""
    c, b = config, block
    attn = ATTENTIONS[b.attn](c, b, layer)
    if b.moe:
        ffn = MixtureOfExperts(c.n_embd, b, c.dropout)
    else:
        ffn = make_feed_forward(c.n_embd, b.up_dim, b.non_linearity, c.dropout, c.bias)
    return TransformerBlock(
        c.n_embd, b.n_head, c.block_size, c.dropout, attn=attn, ffn=ffn, norm=partial(make_norm, c),
        norm_place=c.norm_place, parallel=c.parallel_residual,
    )  # fmt: skip


def make_norm(c: ModelConfig) -> nn.Module:
    """A norm over the width of a model."""
    return NORMS[c.norm](c.n_embd, c.bias, c.norm_eps)


class GPTLanguageModel(nn.Module):
    """A decoder-only transformer: the tutorial's by default, others as the config says.

    A dict has at least the keys `vocab_size n_embd n_head n_layer block_size dropout`; ValueError where one is missing,
    unknown or impossible.
    """

    def __init__(self, config: ModelConfig | dict[str, Any]) -> None:
        super().__init__()
        self.compute_dtype: torch.dtype | None = None  # of activations; None: that of the embeddings
        self.act_recomp = False  # whether training computes the activations of blocks again for the backward pass
        self.config = c = config if isinstance(config, ModelConfig) else ModelConfig.from_dict(config)
        with no_default_init():
            self.token_embedding = nn.Embedding(c.vocab_size, c.n_embd)
            self.position_embedding = POSITIONS[c.pos_emb](c.block_size, c.n_embd)
            self.blocks = nn.ModuleList(make_block(c, block, i) for i, block in enumerate(c.blocks))
            self.ln_f = make_norm(c)
            self.head = nn.Linear(c.n_embd, c.vocab_size, bias=c.head_bias)
        if c.tie_embeddings:
            self.head.weight = self.token_embedding.weight
        init_weights(self, c.n_layer)

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor | None = None, cache: Cache | None = None,
        return_logits: bool = True,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        """Score every next token.

        Args:
            idx: token ids, (B, T).
            targets: the ids one place later, (B, T), NOT_TRAINED_ON where they do not count; or None.
            cache: what was read before idx; idx is added to it. More than block_size tokens together: ValueError.
            return_logits: without them (None) a large vocabulary takes less memory and time; for training.

        Returns:
            logits (B, T, vocab_size), and the mean cross-entropy in nats (None without targets).
        """
        start = cache.length if cache else 0
        stop = start + idx.shape[1]
        if stop > self.config.block_size:
            raise ValueError(f"a sequence of {stop} tokens is longer than block_size {self.config.block_size}")
        x = self.token_embedding(idx)  # (B, T, n_embd)
        if self.config.scale_embeddings:
            x = x * self.config.n_embd**0.5
        if self.position_embedding is not None:
            x = x + self.position_embedding(torch.arange(start, stop, device=idx.device))  # + (T, n_embd)
        x = x.to(self.compute_dtype or x.dtype)
        layers = cache.layers if cache else [None] * len(self.blocks)
        for block, layer in zip(self.blocks, layers, strict=True):
            x = _recomputing(block, x) if self.act_recomp and self.training else block(x, layer)  # (B, T, n_embd)
        x = self.ln_f(x)
        cap = self.config.logit_softcap
        if targets is not None and not return_logits:
            loss = linear_cross_entropy(x.flatten(0, 1), self.head.weight, self.head.bias, targets.flatten(), cap)
            return None, loss
        logits = self.head(x)  # (B, T, vocab_size)
        if cap is not None:
            logits = cap * (logits / cap).tanh()
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_TRAINED_ON)

    @torch.no_grad()
    def generate(
        self, idx: torch.Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
        generator: torch.Generator | None = None, use_cache: bool = True,
    ) -> torch.Tensor:  # fmt: skip
        """Append `max_new_tokens` sampled tokens to `idx` of shape (B, T), T ≥ 1.

        At the end of the window its last half becomes the beginning of the next one, as when a file runs in llama.cpp.

        Args:
            temperature: 0 takes the likeliest token, 1 samples from the model as it is.
            top_k: sample among the k likeliest tokens only.
            generator: source of randomness (default: torch's own).
            use_cache: remember the keys and values of the window; without it everything is computed anew.
        """
        was_training = self.training
        self.eval()
        block_size = self.config.block_size
        cache = Cache(self.config.n_layer, block_size)
        window = unread = idx[:, -block_size:]
        for _ in range(max_new_tokens):
            if window.shape[1] > block_size:
                window = unread = window[:, -max(1, block_size // 2) :]
                cache.clear()
            logits, _ = self(unread, cache=cache) if use_cache else self(window)
            logits = logits[:, -1]  # (B, vocab_size)
            if top_k is not None and top_k < logits.shape[-1]:
                kth = logits.topk(top_k).values[:, -1:]  # (B, 1)
                logits = logits.masked_fill(logits < kth, -torch.inf)
            if temperature == 0:
                token = logits.argmax(-1, keepdim=True)  # (B, 1)
            else:
                token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
            idx, window, unread = torch.cat([idx, token], 1), torch.cat([window, token], 1), token
        self.train(was_training)
        return idx

    @property
    def mixtures(self) -> list[MixtureOfExperts]:
        """The mixtures of experts among the feed-forward layers."""
        return [block.ffn for block in self.blocks if isinstance(block.ffn, MixtureOfExperts)]

    def balance_loss(self) -> torch.Tensor | float:
        """What to add to the loss of the latest forward pass, so that experts are used evenly."""
        return sum(mixture.balance_loss for mixture in self.mixtures)

    def rebalance(self) -> None:
        """After a step, move the experts' selection biases against their load (see `MixtureOfExperts`).

        Those of a router that is not trained stay as they are.
        """
        for mixture in self.mixtures:
            if mixture.router.weight.requires_grad:
                mixture.rebalance()
            else:
                mixture.forget()

    @classmethod
    def outline(cls, config: ModelConfig) -> GPTLanguageModel:
        """The model without any memory behind it (on the meta device), to count and to compare shapes."""
        with torch.device("meta"):
            return cls(config)

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


@contextlib.contextmanager
def no_default_init() -> Iterator[None]:
    """Matrices of modules made inside are left as memory happens to be, for `init_weights` or a checkpoint to fill.

    PyTorch's own initialisation would be thrown away. On the meta device it imports a compiler: with it `llm_model.py`
    takes 3.2 s instead of 1.8 s. (And its random numbers would make other weights of every seed.)
    """
    originals = {kind: kind.reset_parameters for kind in (nn.Linear, nn.Embedding)}
    try:
        for kind in originals:
            kind.reset_parameters = lambda module: None
        yield
    finally:
        for kind, original in originals.items():
            kind.reset_parameters = original


def init_weights(model: nn.Module, n_layer: int) -> None:
    """GPT-2's initialisation: normal, and what is added to the residual stream is scaled down by its depth."""
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            depth = 2 * n_layer if name.endswith(INTO_RESIDUAL) else 1
            nn.init.normal_(parameter, std=STD / depth**0.5)


def _recomputing(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`block(x)`, of which only x is kept for the backward pass (Chen et al. 2016, https://arxiv.org/abs/1604.06174)."""
    if not isinstance(block.ffn, MixtureOfExperts):
        return checkpoint(block, x, use_reentrant=False)
    contexts = (contextlib.nullcontext(), block.ffn.uncounted())  # of the first computation and the second one
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: contexts)
