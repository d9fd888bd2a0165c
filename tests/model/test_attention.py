"""Attention of every kind against the equations of its paper, and what it remembers."""

from __future__ import annotations

import json

import pytest
import torch
from architectures import ATTENTIONS, EXPERTS, POSITIONS, tiny

from custom_llm.model.attention import SHORT, Cache, attend
from custom_llm.model.layers import EPS

EVERY_ATTENTION = pytest.mark.parametrize("attention", ATTENTIONS)
EVERY_POSITION = pytest.mark.parametrize("pos_emb", POSITIONS)
B, T, C, H, D = 2, 9, 32, 4, 8  # sequences, tokens, width, heads, width of a head


def causal_softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the last dimension of (…, T, T), where no query sees a later key."""
    future = torch.ones(scores.shape[-2:]).triu(1).bool()
    return scores.masked_fill(future, -torch.inf).softmax(-1)


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotate (B, T, heads, width) as complex numbers: number i by the angle t / 10000^(2i/width) at time t."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1])[:, None] / 10_000 ** (torch.arange(half) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([turned.real, turned.imag], -1)


@EVERY_POSITION
@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if not name.startswith("mla")])
def test_heads_that_share_keys_are_heads_with_copies_of_them(attention, pos_emb):
    """Written out, with qk_norm and rotations where they belong: norms first."""
    layer = tiny(pos_emb, **ATTENTIONS[attention]).blocks[0].attn.eval()
    n_kv_heads = {"mqa": 1, "gqa": 2}.get(attention, H)
    x = torch.randn(B, T, C)
    q = layer.query(x).view(B, T, H, D)
    k, v = (part(x).view(B, T, n_kv_heads, D) for part in (layer.key, layer.value))
    if attention == "mha-qk_norm":
        q, k = rms_norm(q, layer.query_norm.weight), rms_norm(k, layer.key_norm.weight)
    if pos_emb == "rope":
        q, k = rotate(q), rotate(k)
    k, v = (each[:, :, [h * n_kv_heads // H for h in range(H)]] for each in (k, v))  # head h reads group h·n_kv/H
    weights = causal_softmax(torch.einsum("bihd,bjhd->bhij", q, k) / D**0.5)
    expected = layer.proj(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(B, T, C))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@EVERY_POSITION
@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if name.startswith("mla")])
def test_latent_attention_is_that_of_deepseek(attention, pos_emb):
    """Equations 9 to 19 and 37 to 47 of arXiv:2405.04434, a head at a time."""
    layer = tiny(pos_emb, **ATTENTIONS[attention]).blocks[0].attn.eval()
    R = 6 if pos_emb == "rope" else 0
    h = torch.randn(B, T, C)
    if attention == "mla":
        c_q = rms_norm(layer.query_down(h), layer.query_norm.weight)
        q = torch.einsum("btl,ol->bto", c_q, layer.query_up.weight)
    else:
        q = torch.einsum("btc,oc->bto", h, layer.query.weight)
    down = layer.kv_down(h)
    c_kv, k_r = rms_norm(down[..., :10], layer.kv_norm.weight), down[..., 10:]  # one latent and one key for all heads
    heads = []
    for i in range(H):
        q_c, q_r = q[..., i * (D + R) : i * (D + R) + D], q[..., i * (D + R) + D : (i + 1) * (D + R)]
        k_c = torch.einsum("btl,dl->btd", c_kv, layer.key_up.weight[i * D : (i + 1) * D])
        v_c = torch.einsum("btl,dl->btd", c_kv, layer.value_up.weight[i * D : (i + 1) * D])
        scores = torch.einsum("bid,bjd->bij", q_c, k_c)
        if R:
            q_r, turned = (rotate(each[:, :, None])[:, :, 0] for each in (q_r, k_r))
            scores = scores + torch.einsum("bir,bjr->bij", q_r, turned)
        heads.append(causal_softmax(scores / (D + R) ** 0.5) @ v_c)
    torch.testing.assert_close(layer(h), layer.proj(torch.cat(heads, -1)), atol=1e-5, rtol=1e-5)


@EVERY_POSITION
@EVERY_ATTENTION
def test_the_cache_holds_what_its_attention_needs_and_no_more(attention, pos_emb):
    model = tiny(pos_emb, **ATTENTIONS[attention]).eval()
    cache = Cache(2, 16)
    with torch.no_grad():
        model(torch.randint(23, (B, T)), cache=cache)
    a_token = {"mqa": 2 * D, "gqa": 2 * 2 * D}.get(attention, 2 * C)
    if attention.startswith("mla"):
        a_token = 10 + (6 if pos_emb == "rope" else 0)
    for layer in cache.layers:
        assert layer.length == T
        assert sum(tensor.numel() for tensor in layer._tensors) == B * 16 * a_token


@EVERY_POSITION
@EVERY_ATTENTION
def test_reading_in_pieces_gives_the_logits_of_one_pass(attention, pos_emb):
    model = tiny(pos_emb, **ATTENTIONS[attention]).eval()
    ids = torch.randint(23, (B, 16))
    cache = Cache(2, 16)
    with torch.no_grad():
        pieces = [model(piece, cache=cache)[0] for piece in ids.split([5, 1, 4, 1, 1, 3, 1], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, 1), model(ids)[0], atol=1e-5, rtol=1e-5)


@EVERY_POSITION
@EVERY_ATTENTION
def test_generation_with_a_cache_writes_what_it_writes_without(attention, pos_emb):
    """Over more than two windows; greedily and by chance."""
    model = tiny(pos_emb, **ATTENTIONS[attention])
    start = torch.randint(23, (B, 3))
    for temperature in (0, 1):
        with_cache, without = (
            model.generate(start, 40, temperature, generator=torch.Generator().manual_seed(1), use_cache=use_cache)
            for use_cache in (True, False)
        )
        assert torch.equal(with_cache, without)
        assert len(with_cache.unique()) > 1


@pytest.mark.parametrize("experts", EXPERTS)
@EVERY_POSITION
@EVERY_ATTENTION
def test_what_comes_later_changes_nothing_before(attention, pos_emb, experts):
    model = tiny(pos_emb, **ATTENTIONS[attention], **EXPERTS[experts]).eval()
    ids = torch.randint(23, (1, 16))
    changed = ids.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 23
    with torch.no_grad():
        a, b = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(a[:, :10], b[:, :10], atol=1e-5, rtol=1e-5)
    assert not torch.isclose(a[:, 10:], b[:, 10:], atol=1e-3).all(-1).any()


@pytest.mark.parametrize(("kind", "bias"), [("layer", True), ("layer", False), ("rms", True)])
def test_norms_are_their_formulas(kind, bias):
    norm = tiny(norm=kind, bias=bias).ln_f
    assert [name for name, _ in norm.named_parameters()] == ["weight", "bias"][: 1 + (kind == "layer" and bias)]
    x = 3 + 2 * torch.randn(B, T, C)
    if kind == "layer":
        centred = x - x.mean(-1, keepdim=True)
        expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
        expected = expected + norm.bias if bias else expected
    else:
        expected = rms_norm(x, norm.weight)
    torch.testing.assert_close(norm(x), expected)


@EVERY_ATTENTION
def test_a_model_without_biases_has_none(attention):
    names = dict(tiny(bias=False, **ATTENTIONS[attention]).named_parameters())
    assert names and not any(name.endswith("bias") for name in names)


def mixed_layers(pos_emb: str) -> str:
    """One layer of every attention, with a dense layer or one of two kinds of experts in turn."""
    layers = []
    for i, attention in enumerate(name for name in ATTENTIONS if name != "mha-qk_norm"):
        experts = list(EXPERTS.values())[i % 3]
        layer = {"attn": "mha", "n_head": 4, "moe": False, "up_dim": 48, "non_linearity": "gelu"}
        layer |= ATTENTIONS[attention] | experts
        if experts:
            layer |= {"n_shared": 0, "aux_free": False, "coeff": 0.01} | experts
        if experts.get("aux_free"):
            layer = {key: value for key, value in layer.items() if key != "coeff"} | {"alpha": 1e-4, "gamma": 1e-3}
        if attention.startswith("mla") and pos_emb == "rope":
            layer["rope_head_dim"] = 6
        layers.append(layer)
    return json.dumps(layers)


@EVERY_POSITION
def test_layers_of_all_kinds_make_one_model(pos_emb):
    layers = mixed_layers(pos_emb)
    model = tiny(pos_emb, n_layer=5, layer_configs=layers)
    assert [type(block.ffn).__name__ for block in model.blocks] == [
        "Sequential", "MixtureOfExperts", "MixtureOfExperts", "Sequential", "MixtureOfExperts",
    ]  # fmt: skip
    assert [block.attn.key.out_features for block in model.blocks[:3]] == [32, 8, 16]
    ids = torch.randint(23, (B, 16))
    _, loss = model(ids, ids)
    (loss + model.balance_loss()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.rebalance()
    with_cache, without = (model.generate(ids[:, :2], 30, 0, use_cache=use_cache) for use_cache in (True, False))
    assert torch.equal(with_cache, without)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@EVERY_ATTENTION
@pytest.mark.parametrize("experts", EXPERTS)
def test_half_precision_says_nearly_the_same(attention, experts):
    """Under autocast the weights stay as they are; the other way they are halved, too."""
    model = tiny("rope", **ATTENTIONS[attention], **EXPERTS[experts])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)  # so that no choice of an expert hangs by a thread
    ids = torch.randint(23, (B, 16))
    exact = model(ids, ids)[1]
    with torch.autocast("cpu", torch.bfloat16):
        half = model(ids, ids)[1]
    (half + model.balance_loss()).backward()
    model.rebalance()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    assert model.generate(ids[:, :3], 20).shape == (B, 23)
    assert half.item() == pytest.approx(exact.item(), abs=0.04)
    assert model.bfloat16()(ids, ids)[1].item() == pytest.approx(exact.item(), abs=0.04)  # next to 3, 0.016 is a step


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_tokens", [5, SHORT + 1])
def test_attention_is_as_exact_as_its_input(n_tokens, kind):
    """Against the formula in float64; bfloat16 is rounded, float64 is not."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n_tokens, 8, dtype=torch.float64).to(kind) for _ in range(3))
    scores = q.double() @ k.double().mT / 8**0.5
    scores = scores.masked_fill(torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1), -torch.inf)
    expected = (scores.softmax(-1) @ v.double()).transpose(1, 2).flatten(2)
    y = attend(q, k, v, dropout=0.0)
    bound = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}[kind]
    assert y.dtype == kind and (y.double() - expected).abs().max() < bound


def test_dropout_is_in_training_only():
    model = tiny(dropout=0.5)
    ids = torch.randint(23, (B, 16))
    assert not torch.allclose(model(ids)[0], model(ids)[0])
    model.eval()
    assert torch.equal(model(ids)[0], model(ids)[0])
