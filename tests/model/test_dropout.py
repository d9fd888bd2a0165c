"""Dropout: how much of what is dropped, and that its gradient is of what is kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.model.layers import Dropout


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.99])
def test_a_share_p_is_dropped_and_the_mean_stays(p):
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(1000, 1001))
    n = y.numel()
    spread = (p * (1 - p) / n) ** 0.5
    assert abs((y == 0).float().mean().item() - p) < 5 * spread
    assert torch.unique(y).tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)
    assert y.mean().item() == pytest.approx(1, abs=5 * spread / (1 - p) + 1e-5)


def test_neighbours_are_dropped_independently():
    """Four elements share a random number of 64 bits, of which each has bits of its own."""
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(1 << 20)) > 0).view(-1, 4).float()
    assert torch.corrcoef(kept.T).fill_diagonal_(0).abs().max() < 0.01
    assert torch.corrcoef(torch.cat([kept[:-1], kept[1:]], dim=1).T).fill_diagonal_(0).abs().max() < 0.01


@given(
    st.lists(st.integers(0, 5), max_size=4), st.floats(0, 0.99), st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**32),
)  # fmt: skip
@settings(deadline=None)
def test_any_shape_keeps_what_its_gradient_says(shape, p, dtype, seed):
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    y = Dropout(p)(x)
    y.sum().backward()
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert torch.equal(x.grad * x, y)
    torch.manual_seed(seed)
    again = torch.randn(shape, dtype=dtype)
    assert torch.equal(Dropout(p)(again), y), "the same seed drops the same"


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_nothing_is_dropped_outside_of_training(p):
    x = torch.randn(7, 5)
    state = torch.get_rng_state()
    assert torch.equal(Dropout(p).eval()(x), x)
    assert p or torch.equal(Dropout(p)(x), x), "nor where nothing is to be"
    assert torch.equal(torch.get_rng_state(), state)
