"""The loss of a large vocabulary, computed in pieces, and what else is computed otherwise while a CPU trains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.model import loss
from custom_llm.model.kernels import CausalAttention, RMSNormFunction, Rotation
from custom_llm.model.loss import NOT_TRAINED_ON, linear_cross_entropy

CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}  # relative lengths of errors


def check(ours: list[torch.Tensor], exact: list[torch.Tensor], within: float) -> None:
    for mine, right in zip(ours, exact, strict=True):
        assert (mine.double() - right).norm() <= within * right.norm() + 1e-30


def exact_copies(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    return [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in tensors]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(2, 300), st.booleans(), st.sampled_from([None, 3.0]), st.sampled_from([*CLOSE]),
    st.integers(1, 4000), st.integers(0, 1 << 20),
)  # fmt: skip
def test_loss_and_gradients_in_pieces_are_those_of_the_whole(n, vocab_size, has_bias, softcap, dtype, at_once, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=random).to(dtype).requires_grad_()
    master = torch.promote_types(dtype, torch.float32)
    weight = torch.randn(vocab_size, 8, generator=random).to(master).requires_grad_()
    bias = torch.randn(vocab_size, generator=random).to(master).requires_grad_() if has_bias else None
    targets = torch.randint(vocab_size, (n,), generator=random)
    targets[1::3] = NOT_TRAINED_ON
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "AT_ONCE", min(at_once, n * vocab_size - 1))
        patch.setattr(loss, "IN_CACHE", at_once // 3)
        patch.setattr(loss, "COLUMNS", 100)
        found = linear_cross_entropy(x, weight, bias, targets, softcap)
    exact_x, exact_weight, exact_bias = exact_copies(x, weight, bias)
    logits = F.linear(exact_x, exact_weight, exact_bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    right = F.cross_entropy(logits, targets, ignore_index=NOT_TRAINED_ON)
    check([found.detach()], [right.detach()], CLOSE[dtype])
    inputs = [x, weight] if bias is None else [x, weight, bias]
    exact = [exact_x, exact_weight] if bias is None else [exact_x, exact_weight, exact_bias]
    check(torch.autograd.grad(0.5 * found, inputs), torch.autograd.grad(0.5 * right, exact), CLOSE[dtype])


def test_a_frozen_output_layer_gets_no_gradient(monkeypatch):
    monkeypatch.setattr(loss, "AT_ONCE", 100)
    x, weight = torch.randn(20, 8, requires_grad=True), torch.randn(30, 8)
    linear_cross_entropy(x, weight, None, torch.arange(20)).backward()
    assert x.grad is not None and weight.grad is None


@pytest.mark.parametrize("dtype", CLOSE)
def test_kernels_give_what_the_plain_forms_give(dtype):
    torch.manual_seed(0)
    x, gradient = torch.randn(2, 5, 24, dtype=dtype, requires_grad=True), torch.randn(2, 5, 24, dtype=dtype)
    weight = torch.randn(24, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
    y = RMSNormFunction.apply(x, weight, 1e-5)
    exact = exact_copies(x, weight)
    right = F.rms_norm(exact[0], (24,), exact[1], 1e-5)
    check([y, *torch.autograd.grad(y, [x, weight], gradient)],
          [right, *torch.autograd.grad(right, exact, gradient.double())], CLOSE[dtype])  # fmt: skip

    q, k, v = (torch.randn(2, n, 17, 8, dtype=dtype, requires_grad=True) for n in (6, 2, 2))
    y, gradient = CausalAttention.apply(q, k, v, 0.3), torch.randn(2, 6, 17, 8, dtype=dtype)
    exact = exact_copies(q, k, v)
    right = F.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True, scale=0.3)
    check([y, *torch.autograd.grad(y, [q, k, v], gradient)],
          [right, *torch.autograd.grad(right, exact, gradient.double())], CLOSE[dtype])  # fmt: skip

    angle = torch.randn(17, 3, dtype=torch.float64)  # 6 of 8 numbers turn
    y = Rotation.apply(q, angle.sin().to(dtype), angle.cos().to(dtype))
    (exact,) = exact_copies(q)
    left, right, still = exact.tensor_split((3, 6), -1)
    parts = [left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin(), still]
    right = torch.cat(parts, -1)
    check([y, *torch.autograd.grad(y, q, gradient)],
          [right, *torch.autograd.grad(right, exact, gradient.double())], CLOSE[dtype])  # fmt: skip
