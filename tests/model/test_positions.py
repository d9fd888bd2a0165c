"""Positions: a table of sines, and rotations of queries and keys."""

from __future__ import annotations

import math

import pytest
import torch
from architectures import SIX, tiny
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from custom_llm.model.layers import Rotary


def test_sines_are_those_of_the_paper():
    """PE(pos, 2i) = sin(pos / 10000^(2i/width)), PE(pos, 2i + 1) = cos of the same; added to the embeddings."""
    model = tiny("sin")
    table = model.position_embedding(torch.arange(16))
    for position in range(16):
        for i in range(SIX["n_embd"] // 2):
            angle = position / 10_000 ** (2 * i / SIX["n_embd"])
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ids = torch.randint(23, (2, 9))
    model(ids)
    torch.testing.assert_close(seen[0], model.token_embedding(ids) + table[:9])


def test_a_table_of_sines_is_not_learnt_and_not_saved():
    model = tiny("sin")
    assert not any("position" in name for name in [*model.state_dict(), *dict(model.named_parameters())])


@pytest.mark.parametrize("width", [2, 8, 64])
def test_scores_of_rotated_vectors_depend_on_the_distance_only(width):
    torch.manual_seed(0)
    rotary = Rotary(50, width).double()
    q, k = torch.randn(2, 1, 1, 1, width, dtype=torch.double)

    def score(i: int, j: int) -> float:
        return (rotary(q, i) * rotary(k, j)).sum().item()

    for distance in (0, 1, 5, 20):
        scores = [score(j + distance, j) for j in (0, 3, 17, 29)]
        assert scores == pytest.approx([scores[0]] * 4, abs=1e-5)
    assert score(0, 0) == pytest.approx((q * k).sum().item())
    assert score(1, 0) != pytest.approx(score(0, 1), abs=1e-3)


@pytest.mark.parametrize("start", [0, 5])
def test_rotations_are_those_of_llama_in_transformers(start):
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, max_position_embeddings=32)
    q, k = torch.randn(2, 2, 4, 12, 16)
    cos, sin = LlamaRotaryEmbedding(config)(q, torch.arange(start, start + 12)[None])
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    rotary = Rotary(32, 16)
    torch.testing.assert_close((rotary(q, start), rotary(k, start)), theirs, atol=1e-5, rtol=1e-5)
