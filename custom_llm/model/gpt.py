"""The GPT: embeddings, blocks, output layer, loss and sampling.

The state dict has the tutorial's names:
    token_embedding, position_embedding                       .weight
    blocks.N.ln1, blocks.N.attn.{key,query,value,proj},
    blocks.N.ln2, blocks.N.ffn.{0,2}, ln_f                    .weight .bias
    head                                                      .weight (and .bias with head_bias)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.config import ModelConfig
from custom_llm.model.block import TransformerBlock
from custom_llm.model.init import init_weights, no_default_init


class GPTLanguageModel(nn.Module):
    """A decoder-only transformer in the form of GPT-2 with an output layer of its own (not tied)."""

    def __init__(self, config: ModelConfig | dict[str, Any]) -> None:
        """Args:
        config: a `ModelConfig`, or a dict with at least
            `vocab_size n_embd n_head n_layer block_size dropout`.

        Raises:
            ValueError: a key is missing, unknown or impossible.
        """
        super().__init__()
        self.config = c = config if isinstance(config, ModelConfig) else ModelConfig.from_dict(config)
        with no_default_init():
            self.token_embedding = nn.Embedding(c.vocab_size, c.n_embd)
            self.position_embedding = nn.Embedding(c.block_size, c.n_embd)
            self.blocks = nn.ModuleList(
                TransformerBlock(c.n_embd, c.n_head, c.block_size, c.dropout, c.non_linearity) for _ in range(c.n_layer)
            )
            self.ln_f = nn.LayerNorm(c.n_embd)
            self.head = nn.Linear(c.n_embd, c.vocab_size, bias=c.head_bias)
        init_weights(self, c.n_layer)

    def forward(
        self, idx: torch.Tensor, targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Score every next token.

        Args:
            idx: token ids, (B, T) with T ≤ block_size.
            targets: the ids one place later, (B, T), or None.

        Returns:
            logits (B, T, vocab_size), and the mean cross-entropy in nats (None without targets).

        Raises:
            ValueError: T is larger than block_size.
        """
        T = idx.shape[1]
        if T > self.config.block_size:
            raise ValueError(f"a sequence of {T} tokens is longer than block_size {self.config.block_size}")
        positions = torch.arange(T, device=idx.device)
        x = self.token_embedding(idx) + self.position_embedding(positions)  # (B, T, n_embd)
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.ln_f(x))  # (B, T, vocab_size)
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss

    @torch.no_grad()
    def generate(
        self,
        idx: torch.Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Append `max_new_tokens` sampled tokens to `idx` of shape (B, T), T ≥ 1; the window slides past block_size.

        Args:
            temperature: 0 takes the likeliest token, 1 samples from the model as it is.
            top_k: sample among the k likeliest tokens only.
            generator: source of randomness (default: torch's own).
        """
        was_training = self.training
        self.eval()
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.config.block_size :])
            logits = logits[:, -1]  # (B, vocab_size)
            if top_k is not None and top_k < logits.shape[-1]:
                kth = logits.topk(top_k).values[:, -1:]
                logits = logits.masked_fill(logits < kth, -torch.inf)
            if temperature == 0:
                token = logits.argmax(-1, keepdim=True)
            else:
                token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
            idx = torch.cat([idx, token], dim=1)
        self.train(was_training)
        return idx

    @classmethod
    def outline(cls, config: ModelConfig) -> GPTLanguageModel:
        """The model without any memory behind it (on the meta device), to count and to compare shapes."""
        with torch.device("meta"):
            return cls(config)

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
