"""Parts of a model that PyTorch computes slowly on a CPU, with fewer passes over memory and larger products.

Each gives what the plain form gives, but for rounding. They are for training: what the backward pass needs is kept as
small as it is, not what every elementary operation would keep.
"""

from __future__ import annotations

from typing import Any

import torch

SHORT_IN_BFLOAT16 = 512  # tokens up to which `CausalAttention` is faster than PyTorch's kernel, in bfloat16

once_differentiable = torch.autograd.function.once_differentiable


def trains_on_cpu(x: torch.Tensor) -> bool:
    """Whether x is trained on, and on a CPU. (Compilers fuse the plain forms on their own.)"""
    return x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()


class RMSNormFunction(torch.autograd.Function):
    """x / √(mean(x²) + eps) · weight, computed in float32 at least, in the type of x; only x is kept of its size."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # (…, 1)
        ctx.save_for_backward(x, weight, scale)
        return (exact * scale).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normal = x * scale  # in float32, as scale is
        gradient = gradient.to(normal.dtype)
        product = gradient * normal
        dw = product.flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        along = (product @ weight.to(product.dtype)).div_(-x.shape[-1]).unsqueeze(-1)  # (…, 1)
        dx = torch.mul(gradient, weight, out=product).addcmul_(normal, along).mul_(scale)
        return dx.to(x.dtype), dw, None


class Rotation(torch.autograd.Function):
    """x, (B, n_head, T, head_dim), turned by angles of sin and cos, (T, width/2), half-split (see `Rotary`)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, sin: torch.Tensor, cos: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(sin, cos)
        return turned(x, sin, cos)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        sin, cos = ctx.saved_tensors
        return turned(gradient, -sin, cos), None, None  # back


def turned(x: torch.Tensor, sin: torch.Tensor, cos: torch.Tensor) -> torch.Tensor:
    """See `Rotation`; laid out one head after the other."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = sin.shape[-1]
    (left, right, still), (to_left, to_right, beyond) = (z.tensor_split((half, 2 * half), -1) for z in (x, y))
    torch.mul(left, cos, out=to_left).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=to_right).addcmul_(left, sin)
    beyond.copy_(still)  # what does not turn, if the heads are wider
    return y


class CausalAttention(torch.autograd.Function):
    """softmax(scale · q·kᵀ)·v over the tokens up to each query's own, by products of whole matrices.

    The scores of all pairs of tokens are written out, (T, T) for each head: over a few hundred tokens that is faster
    than PyTorch's kernel for a CPU, most of all in bfloat16, where a processor may have instructions for products.

    q: (B, n_head, T, width); k, v: (B, n_kv_heads, T, width of its own); n_head is a multiple of n_kv_heads.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        B, n_head, T, width = q.shape
        n_kv_heads = k.shape[1]
        # The queries of the heads that share keys stand one below the other, as rows of one matrix.
        q = q.reshape(B * n_kv_heads, -1, width)
        k, v = k.reshape(B * n_kv_heads, T, -1), v.reshape(B * n_kv_heads, T, -1)
        future = torch.full((T, T), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
        weights = torch.baddbmm(future.repeat(n_head // n_kv_heads, 1), q, k.mT, alpha=scale)
        weights = weights.softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale, ctx.shapes = scale, ((B, n_head, T, -1), (B, n_kv_heads, T, -1))
        return (weights @ v).view(B, n_head, T, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        of_queries, of_keys = ctx.shapes
        gradient = gradient.reshape(len(q), q.shape[1], -1)
        dv = weights.mT @ gradient
        dw = gradient @ v.mT
        ds = torch._softmax_backward_data(dw, weights, -1, dw.dtype)
        dq = (ds @ k).mul_(ctx.scale)
        dk = (ds.mT @ q).mul_(ctx.scale)
        return dq.view(of_queries), dk.view(of_keys), dv.view(of_keys), None
