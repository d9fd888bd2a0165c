"""Small models of every architecture, for tests."""

from __future__ import annotations

from typing import Any

import torch

from custom_llm.model import GPTLanguageModel

SIX = dict(vocab_size=23, n_embd=32, n_head=4, n_layer=2, block_size=16, dropout=0.0)
ATTENTIONS: dict[str, dict[str, Any]] = {
    "mha": {},
    "mqa": {"attn": "mqa"},
    "gqa": {"attn": "gqa", "n_kv_heads": 2},
    "mha-qk_norm": {"qk_norm": True},
    "mla": {"attn": "mla", "q_latent_dim": 12, "kv_latent_dim": 10},
    "mla-plain_queries": {"attn": "mla", "q_latent_dim": 0, "kv_latent_dim": 10},
}
EXPERTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "softmax": {"moe": True, "n_exp": 6, "n_act": 2, "up_dim": 16},
    "aux_free": {
        "moe": True, "n_exp": 7, "n_act": 3, "n_shared": 1, "up_dim": 16, "aux_free": True, "non_linearity": "swiglu",
    },
}  # fmt: skip
POSITIONS = ("learn", "sin", "rope")


def tiny(pos_emb: str = "learn", **changes: Any) -> GPTLanguageModel:
    """A model of two small layers whose numbers are not small: after the usual start it would be nearly linear."""
    if pos_emb == "rope" and changes.get("attn") == "mla":
        changes = {"rope_head_dim": 6, **changes}
    torch.manual_seed(0)
    model = GPTLanguageModel({**SIX, "pos_emb": pos_emb, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def windows(n: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch (x, y) for such a model, (n, 16) each."""
    ids = torch.randint(SIX["vocab_size"], (n, SIX["block_size"] + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]
