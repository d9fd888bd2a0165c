"""The model in PyTorch."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from custom_llm.config.block import GATED
from custom_llm.config.model import ModelConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.model.feed_forward import ACTIVATIONS, GATES
from custom_llm.model.gpt import ATTENTIONS, POSITIONS
from custom_llm.model.layers import NORMS

SIX = dict(vocab_size=23, n_embd=32, n_head=4, n_layer=2, block_size=16, dropout=0.0)


def test_defaults_have_the_tutorials_names_and_size():
    model = GPTLanguageModel(dict(vocab_size=10000, n_embd=256, n_head=8, n_layer=6, block_size=128, dropout=0.1))
    assert f"{model.n_parameters() / 1e6:.2f}" == "9.89"
    names = set(model.state_dict())
    assert {"token_embedding.weight", "position_embedding.weight", "ln_f.weight", "head.weight"} <= names
    block = {name.removeprefix("blocks.5.") for name in names if name.startswith("blocks.5.")}
    layers = ["ln1", "ln2", "attn.key", "attn.query", "attn.value", "attn.proj", "ffn.0", "ffn.2"]
    assert block == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_the_first_loss_is_that_of_guessing():
    torch.manual_seed(0)
    model = GPTLanguageModel(SIX)
    x = torch.randint(23, (8, 16))
    assert model(x, x.roll(-1, 1))[1].item() == pytest.approx(math.log(23), abs=0.1)


def test_no_position_sees_the_future():
    torch.manual_seed(0)
    model = GPTLanguageModel(SIX).eval()
    x = torch.randint(23, (1, 16))
    changed = x.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 23
    a, b = model(x)[0], model(changed)[0]
    torch.testing.assert_close(a[:, :10], b[:, :10])
    assert not torch.allclose(a[:, 10:], b[:, 10:])


def test_attention_is_the_textbooks():
    """softmax(QKᵀ/√d)V with a causal mask, written out."""
    torch.manual_seed(0)
    attention = GPTLanguageModel(SIX).blocks[0].attn.eval()
    x = torch.randn(2, 9, 32)
    q, k, v = (layer(x).view(2, 9, 4, 8).transpose(1, 2) for layer in (attention.query, attention.key, attention.value))
    scores = (q @ k.transpose(-2, -1) / 8**0.5).masked_fill(~torch.ones(9, 9).tril().bool(), -torch.inf)
    expected = attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 9, 32))
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("non_linearity", ["gelu", "relu"])
def test_generation_goes_past_the_context(non_linearity):
    torch.manual_seed(0)
    model = GPTLanguageModel({**SIX, "non_linearity": non_linearity}).train()
    start = torch.randint(23, (2, 3))
    text = model.generate(start, 50)
    assert text.shape == (2, 53) and torch.equal(text[:, :3], start) and text.max() < 23
    assert model.training, "generation leaves the mode as it was"


def test_temperature_0_takes_the_likeliest_and_top_k_1_does_the_same():
    torch.manual_seed(0)
    model = GPTLanguageModel(SIX).eval()
    start = torch.randint(23, (1, 4))
    greedy = model.generate(start, 10, temperature=0)
    assert torch.equal(greedy, model.generate(start, 10, top_k=1))
    expected = start
    for _ in range(10):
        expected = torch.cat([expected, model(expected[:, -16:])[0][:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(greedy, expected)


def test_the_same_generator_writes_the_same_text():
    model = GPTLanguageModel(SIX)
    start = torch.zeros(1, 1, dtype=torch.long)
    texts = [model.generate(start, 20, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*texts)


def test_a_sequence_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="17 tokens is longer than block_size 16"):
        GPTLanguageModel(SIX)(torch.zeros(1, 17, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": 5}, "n_embd 32 is not a multiple of n_head 5"),
        ({"n_layers": 5}, "unknown key: 'n_layers'"),
        ({"vocab_size": 0}, "vocab_size 0 is not a whole number from 1"),
        ({"n_embd": "32"}, "n_embd '32' is not a whole number"),
        ({"n_layer": True}, "n_layer True is not a whole number"),
        ({"non_linearity": "gelo"}, "non_linearity 'gelo' is not one of gelu, relu, "),
    ],
)
def test_impossible_configurations_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        GPTLanguageModel({**SIX, **change})


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="lacks n_embd"):
        GPTLanguageModel({key: value for key, value in SIX.items() if key != "n_embd"})


def test_every_variant_that_can_be_configured_is_there():
    choices = {item.name: set(item.metadata.get("choices") or ()) for item in fields(ModelConfig)}
    assert choices["attn"] == set(ATTENTIONS)
    assert choices["pos_emb"] == set(POSITIONS)
    assert choices["norm"] == set(NORMS)
    assert choices["non_linearity"] - {"swish"} == {*ACTIVATIONS, *GATES} and set(GATED) == set(GATES)
