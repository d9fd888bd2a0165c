"""The cross-entropy of a large vocabulary, computed in pieces, so that its logits are never there all at once.

Logits, their softmax and both gradients of 2,048 tokens and a vocabulary of 49,152 are 1.6 GB in float32, more than all
activations of a model with 135 M parameters. Here a piece of the rows is multiplied, its loss and its gradients are
computed at once, in the forward pass, and what is left of it are the gradients of the hidden states and of the matrix
(Wijmans et al. 2024, arXiv:2411.09009; Hsu et al. 2024, arXiv:2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

NOT_TRAINED_ON = -100  # a target that does not count (the `ignore_index` of cross entropy)
AT_ONCE = 1 << 26  # logits of a piece; fewer than these are computed all at once, by PyTorch
IN_CACHE = 1 << 19  # logits whose softmax is computed together: in float32, as much as a core's own cache holds
COLUMNS = 1 << 13  # of the vocabulary, whose gradient is added up in one product


def linear_cross_entropy(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    softcap: float | None = None,
) -> torch.Tensor:
    """The mean cross-entropy of x·weightᵀ + bias in nats, over the targets that count; nan where none does.

    Products are in the type of x, sums in float32 at least.

    Args:
        x: hidden states, (N, width).
        weight: of the output layer, (vocab_size, width); of any type, its gradient is summed up in that.
        bias: (vocab_size,) or None.
        targets: (N,), NOT_TRAINED_ON where they do not count.
        softcap: logits become softcap · tanh(logits / softcap) (Gemma 2, arXiv:2408.00118).
    """
    if len(x) * len(weight) > AT_ONCE and not torch.compiler.is_compiling():
        return _InPieces.apply(x, weight, bias, targets, softcap)
    logits = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, ignore_index=NOT_TRAINED_ON
    )


class _InPieces(torch.autograd.Function):
    """See `linear_cross_entropy`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:  # fmt: skip
        exact = torch.promote_types(x.dtype, torch.float32)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        with torch.autocast(x.device.type, enabled=False):
            w = weight.to(x.dtype)
            counts = (targets != NOT_TRAINED_ON)[:, None]  # (N, 1)
            at = targets[:, None].clamp(min=0)  # (N, 1)
            n = counts.sum()
            x_counted = x * counts  # so that rows that do not count add nothing to the gradient of the matrix
            needs_x, needs_w, needs_b = ctx.needs_input_grad[:3]
            dx = torch.empty_like(x) if needs_x else None
            dw = torch.empty_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32)) if needs_w else None
            db = torch.zeros_like(bias, dtype=exact) if needs_b else None
            total = torch.zeros((), dtype=exact, device=x.device)
            n_rows, n_cached = max(1, AT_ONCE // len(w)), max(1, IN_CACHE // len(w))
            n_rows = -(-len(x) // -(-len(x) // n_rows))  # pieces of one size
            memory = x.new_empty(n_rows, len(w))
            for start in range(0, len(x), n_rows):
                rows = slice(start, start + n_rows)
                logits = torch.mm(x[rows], w.T, out=memory[: len(x[rows])])  # (rows, V)
                if bias is not None:
                    logits += bias
                for part, y, is_counted in zip(
                    logits.split(n_cached), at[rows].split(n_cached), counts[rows].split(n_cached), strict=True
                ):
                    z = part.to(exact)
                    if softcap:
                        z = torch.tanh_(z / softcap) * softcap
                    p = z.softmax(-1)
                    # Of a token that is less likely than any number, in float32 e⁻⁸⁷, the loss counts as 87.
                    losses = -p.gather(1, y).clamp_(min=torch.finfo(p.dtype).tiny).log_()
                    total += losses.masked_fill_(~is_counted, 0).sum()
                    if not any(ctx.needs_input_grad[:3]):
                        continue
                    p.scatter_add_(1, y, p.new_full(y.shape, -1.0))
                    if softcap:
                        p *= 1 - (z / softcap) ** 2
                    if needs_b:
                        db += (p * is_counted).sum(0)
                    part.copy_(p)  # the logits are not needed any more; now it is their gradient
                if needs_x:
                    torch.mul(logits @ w, counts[rows], out=dx[rows])
                if needs_w:
                    for some, columns in zip(dw.split(COLUMNS), logits.split(COLUMNS, dim=1), strict=True):
                        product = columns.T @ x_counted[rows]
                        some.add_(product) if start else some.copy_(product)
        ctx.gradients, ctx.n = (dx, dw, db), n
        ctx.types = [None if tensor is None else tensor.dtype for tensor in (x, weight, bias)]
        return total / n

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale = gradient / ctx.n
        gradients, ctx.gradients = ctx.gradients, ()  # scaled in place, once
        return *(None if g is None else g.mul_(scale) for g in gradients), None, None
