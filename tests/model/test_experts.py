"""Mixtures of experts against their formulas, written out token by token."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from architectures import EXPERTS, tiny

from custom_llm.config.block import BlockConfig
from custom_llm.model.experts import MixtureOfExperts
from custom_llm.model.feed_forward import gelu

C, UP = 16, 12
BALANCED_BY = pytest.mark.parametrize("aux_free", [False, True], ids=["softmax", "aux_free"])


def mixture(aux_free: bool, n_chosen: int = 2, n_shared: int = 0, non_linearity: str = "gelu") -> MixtureOfExperts:
    """Eight routed experts in float64, some of them favoured by the bias."""
    torch.manual_seed(0)
    by = {"alpha": 0.5, "gamma": 0.01} if aux_free else {"coeff": 0.5}
    block = BlockConfig(
        moe=True, n_exp=8 + n_shared, n_shared=n_shared, n_act=n_chosen + n_shared, up_dim=UP,
        non_linearity=non_linearity, aux_free=aux_free, **by,
    )  # fmt: skip
    layer = MixtureOfExperts(C, block, dropout=0.0).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
        if aux_free:
            layer.selection_bias.copy_(torch.linspace(-0.3, 0.3, 8))
    return layer


def scores_of(layer: MixtureOfExperts, token: torch.Tensor) -> torch.Tensor:
    logits = layer.router.weight @ token
    return logits.sigmoid() if layer.block.aux_free else logits.exp() / logits.exp().sum()


def chosen_of(layer: MixtureOfExperts, scores: torch.Tensor, biased: bool = True) -> list[int]:
    """The experts of highest score, the bias counted in."""
    rank = scores + layer.selection_bias if layer.block.aux_free and biased else scores
    return sorted(range(8), key=lambda i: -rank[i].item())[: layer.block.n_chosen]


def expert_of(layer: MixtureOfExperts, i: int, token: torch.Tensor) -> torch.Tensor:
    up = layer.up[i] @ token
    if layer.gate is None:
        return layer.down[i] @ gelu(up)
    return layer.down[i] @ (F.silu(layer.gate[i] @ token) * up)


def shared_of(layer: MixtureOfExperts, token: torch.Tensor) -> torch.Tensor:
    """The shared experts one at a time: rows and columns of the wide one, UP each."""
    total = torch.zeros(C, dtype=torch.double)
    for start in range(0, layer.block.n_shared * UP, UP):
        part = slice(start, start + UP)
        if layer.gate is None:
            total += layer.shared[2].weight[:, part] @ gelu(layer.shared[0].weight[part] @ token)
        else:
            gated = F.silu(layer.shared.gate.weight[part] @ token) * (layer.shared.up.weight[part] @ token)
            total += layer.shared.down.weight[:, part] @ gated
    return total


@pytest.mark.parametrize("non_linearity", ["gelu", "swiglu"])
@pytest.mark.parametrize("n_shared", [0, 1, 2])
@pytest.mark.parametrize("n_chosen", [1, 2, 3])
@BALANCED_BY
def test_every_token_gets_all_its_experts(aux_free, n_chosen, n_shared, non_linearity):
    """However crowded they are. The bias chooses; it does not weigh."""
    layer = mixture(aux_free, n_chosen, n_shared, non_linearity)
    x = torch.randn(3, 7, C, dtype=torch.double)
    x[1] = x[0, 0]  # a crowd
    expected = torch.zeros_like(x)
    load = [0] * 8
    for b in range(3):
        for t in range(7):
            token = x[b, t]
            scores = scores_of(layer, token)
            chosen = chosen_of(layer, scores)
            total = scores[chosen].sum() if n_chosen > 1 else 1.0
            for i in chosen:
                load[i] += 1
                expected[b, t] += scores[i] / total * expert_of(layer, i, token)
            expected[b, t] += shared_of(layer, token)
    torch.testing.assert_close(layer(x), expected, atol=1e-10, rtol=0)
    assert layer.load.tolist() == load and max(load) > 7 and sum(load) == 21 * n_chosen


@BALANCED_BY
def test_gradients_are_those_of_the_naive_loop(aux_free):
    """Of the input, of every expert, also of one that nobody chose, and of the router."""
    layer = mixture(aux_free, 2, 1, "swiglu")
    if aux_free:
        layer.selection_bias[3] = -9
    else:
        with torch.no_grad():
            layer.router.weight[3] = -9 * torch.ones(C)
    x = torch.randn(2, 5, C, dtype=torch.double).abs().requires_grad_()
    inputs = [x, *layer.parameters()]
    expected = []
    for token in x.flatten(0, 1):
        scores = scores_of(layer, token)
        chosen = chosen_of(layer, scores)
        y = sum(scores[i] / scores[chosen].sum() * expert_of(layer, i, token) for i in chosen)
        expected.append(y + shared_of(layer, token))
    direction = torch.randn(2, 5, C, dtype=torch.double)
    theirs = torch.autograd.grad((torch.stack(expected) * direction.flatten(0, 1)).sum(), inputs)
    ours = torch.autograd.grad((layer(x) * direction).sum(), inputs)
    assert layer.load[3] == 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("n_chosen", [1, 3])
def test_the_balance_loss_is_that_of_the_switch_transformer(n_chosen):
    """coeff · n Σ fᵢ Pᵢ: fᵢ the share of choices that fell on i, Pᵢ the mean score of i, over the batch."""
    layer = mixture(False, n_chosen)
    x = torch.randn(3, 7, C, dtype=torch.double)
    scores = [scores_of(layer, token) for token in x.flatten(0, 1)]
    picks = [i for s in scores for i in chosen_of(layer, s)]
    total = sum(picks.count(i) / len(picks) * sum(s[i] for s in scores) / len(scores) for i in range(8))
    layer(x)
    torch.testing.assert_close(layer.balance_loss, 0.5 * 8 * total, atol=1e-10, rtol=0)


@pytest.mark.parametrize("n_chosen", [1, 3])
def test_the_sequence_loss_is_that_of_deepseek_v3(n_chosen):
    """alpha Σ fᵢ Pᵢ for each sequence, f and the choices in it by the scores alone (equations 17 to 20)."""
    layer = mixture(True, n_chosen)
    x = torch.randn(3, 7, C, dtype=torch.double)
    losses = []
    for sequence in x:
        scores = [scores_of(layer, token) for token in sequence]
        picks = [i for s in scores for i in chosen_of(layer, s, biased=False)]
        f = [8 / (n_chosen * 7) * picks.count(i) for i in range(8)]
        p = [sum(s[i] / s.sum() for s in scores) / 7 for i in range(8)]
        losses.append(0.5 * sum(f[i] * p[i] for i in range(8)))
    layer(x)
    torch.testing.assert_close(layer.balance_loss, sum(losses) / 3, atol=1e-10, rtol=0)


@BALANCED_BY
def test_the_balance_loss_is_its_weight_where_all_are_used_evenly(aux_free):
    layer = mixture(aux_free, 2)
    torch.nn.init.zeros_(layer.router.weight)
    layer(torch.randn(3, 7, C, dtype=torch.double))
    assert layer.balance_loss.item() == pytest.approx(0.5)


def lopsided(aux_free: bool) -> tuple[MixtureOfExperts, torch.Tensor]:
    """Inputs that all have something in common, which two of the experts like."""
    layer = mixture(aux_free)
    if aux_free:
        layer.selection_bias.zero_()
    x = torch.randn(16, 32, C, dtype=torch.double) + 1
    with torch.no_grad():
        layer.router.weight.normal_(std=0.1)
        layer.router.weight[:2] += 0.1
    return layer, x


def busiest(layer: MixtureOfExperts, x: torch.Tensor) -> float:
    """The load of the busiest expert on x, as a multiple of the mean."""
    layer.forget()
    layer(x)
    return (layer.load.max() / layer.load.double().mean()).item()


def test_biases_balance_a_lopsided_router_without_changing_it():
    layer, x = lopsided(aux_free=True)
    assert busiest(layer, x) > 2
    weights = copy.deepcopy(dict(layer.named_parameters()))
    for _ in range(100):
        layer.forget()
        layer(x)
        layer.rebalance()
    assert busiest(layer, x) < 1.2
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter, weights[name]) and parameter.grad is None
    assert not layer.selection_bias.requires_grad


def test_the_loss_balances_a_lopsided_router():
    layer, x = lopsided(aux_free=False)
    assert busiest(layer, x) > 2
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    for _ in range(100):
        layer(x)
        layer.balance_loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert busiest(layer, x) < 1.3


def test_the_bias_moves_by_gamma_against_the_load():
    layer = mixture(True)
    before = layer.selection_bias.clone()
    layer.load.copy_(torch.tensor([9, 1, 5, 5, 5, 5, 10, 0]))  # 5 on average
    layer.rebalance()
    moved = torch.tensor([-0.01, 0.01, 0, 0, 0, 0, -0.01, 0.01], dtype=torch.double)
    torch.testing.assert_close(layer.selection_bias - before, moved)
    assert not layer.load.any() and layer.balance_loss == 0


def test_reading_without_training_leaves_no_trace():
    layer = mixture(True).eval()
    before = copy.deepcopy(layer.state_dict())
    layer(torch.randn(2, 5, C, dtype=torch.double))
    assert not layer.load.any() and layer.balance_loss == 0
    layer.rebalance()
    assert torch.equal(layer.selection_bias, before["selection_bias"])


def test_scores_that_are_all_zero_give_no_nan():
    layer = mixture(True).float()
    with torch.no_grad():
        layer.router.weight.fill_(-100)
    assert layer(torch.ones(1, 2, C)).isfinite().all()


@pytest.mark.parametrize("experts", [name for name in EXPERTS if name != "dense"])
def test_a_trained_model_is_copied_with_its_state(experts):
    model = tiny(**EXPERTS[experts])
    ids = torch.randint(23, (2, 16))
    (model(ids, ids)[1] + model.balance_loss()).backward()
    model.rebalance()
    other = copy.deepcopy(model)
    assert "load" not in " ".join(model.state_dict()), "the count of a step is no weight"
    assert torch.equal(other.eval()(ids)[0], model.eval()(ids)[0])
