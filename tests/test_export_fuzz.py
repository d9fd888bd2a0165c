"""Models drawn at random: what was planned is what happens, in llama.cpp and in `transformers`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from benchmarks.architectures import TOKENIZER, export, random_model
from custom_llm.config import ModelConfig
from custom_llm.export.plan import apply_changes, nearest_changes, plan_export

ACTIVATIONS = ("gelu", "relu", "relu2", "silu", "swiglu", "geglu", "reglu", "leaky_relu", "mish")


def draw_block(draw: random.Random, n_embd: int, pos_emb: str, attentions: list[str]) -> dict[str, Any]:
    """The options of a layer."""
    heads = [
        n for n in range(1, 9) if n_embd % n == 0 and n_embd // n > 1 and (pos_emb != "rope" or n_embd // n % 2 == 0)
    ]
    block = dict(attn=draw.choice(attentions), n_head=draw.choice(heads or [1]), moe=draw.random() < 0.35)
    if block["attn"] == "gqa":
        block["n_kv_heads"] = draw.choice([n for n in range(1, 9) if block["n_head"] % n == 0])
    if block["attn"] == "mla":
        block |= dict(q_latent_dim=draw.choice([0, 3, 32]), kv_latent_dim=draw.choice([1, 3, 32]))
        block |= dict(rope_head_dim=draw.choice([2, 6, 16])) if pos_emb == "rope" else {}
    if block["moe"]:
        n_shared, n_chosen = draw.choice([0, 0, 1, 3]), draw.choice([1, 2, 3])
        n_exp = n_shared + n_chosen + draw.choice([1, 4, 13])
        block |= dict(n_exp=n_exp, n_shared=n_shared, n_act=n_shared + n_chosen, aux_free=draw.random() < 0.5)
    return block | dict(up_dim=draw.choice([1, 7, 32, 100]), non_linearity=draw.choice(ACTIVATIONS))


def draw_config(seed: int) -> ModelConfig:
    """A configuration that is possible."""
    draw = random.Random(seed)
    while True:
        values = dict(
            vocab_size=TOKENIZER.vocab_size,
            n_embd=draw.choice([4, 30, 63, 64, 66, 96]),
            n_layer=draw.choice([1, 2, 3]),
            n_head=1,
            block_size=draw.choice([1, 33, 256, 257]),
            dropout=0.0,
            pos_emb=draw.choice(["learn", "sin", *["rope"] * 4]),
            norm=draw.choice(["layer", "rms"]),
            bias=draw.random() < 0.4,
            qk_norm=draw.random() < 0.2,
            tie_embeddings=draw.random() < 0.3,
            head_bias=draw.random() < 0.2,
        )
        attentions = draw.choice([["mha", "mqa", "gqa"], ["mla"]])
        block = draw_block(draw, values["n_embd"], values["pos_emb"], attentions)
        if draw.random() < 0.6:
            values |= block
        else:
            blocks = [block]
            for _ in range(values["n_layer"] - 1):
                other = draw_block(draw, values["n_embd"], values["pos_emb"], attentions)
                blocks.append(draw.choice([other, block, block | {"up_dim": other["up_dim"]}]))
            for listed in blocks:
                if listed["moe"]:
                    listed |= dict(alpha=1e-4, gamma=1e-3) if listed["aux_free"] else dict(coeff=0.01)
            values |= dict(layer_configs=json.dumps(blocks))
        try:
            return ModelConfig(**values)
        except ValueError:  # such as rotations of an odd width
            continue


@pytest.mark.parametrize("seed", range(40))
def test_what_was_planned_happens(tmp_path: Path, seed):
    config = draw_config(seed)
    plan = plan_export(config)
    outcome = export(random_model(config.to_dict(), seed), tmp_path)
    assert (outcome.architecture, outcome.hf_class) == (plan.architecture, plan.hf_class), config
    if outcome.hf_class:
        assert outcome.hf_difference <= 1e-4, config
    if outcome.architecture:
        assert outcome.parity.kl_clear <= 1e-6 and outcome.parity.top1_clear == 1.0, config
        shapes = {t.name: tuple(map(int, t.shape[::-1])) for t in GGUFReader(tmp_path / "model.gguf").tensors}
        assert shapes == plan.shapes, config
        return
    nearest = apply_changes(config, nearest_changes(config))
    outcome = export(random_model(nearest.to_dict(), seed), tmp_path)
    assert outcome.parity.kl_clear <= 1e-6, nearest
