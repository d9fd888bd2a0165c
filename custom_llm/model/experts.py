"""A mixture of experts: many small feed-forward layers, of which a router chooses a few for each token."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.config.block import BlockConfig
from custom_llm.model.feed_forward import GATES, Activation, make_feed_forward
from custom_llm.model.layers import Dropout

LEAST_SUM = 1e-20  # DeepSeek's; sigmoids may all be 0


class MixtureOfExperts(nn.Module):
    """Routed experts, and shared ones that see every token (DeepSeekMoE, Dai et al. 2024, arXiv:2401.06066).

    The router's scores are a softmax over the experts, or with `aux_free` a sigmoid each (DeepSeek-V3,
    arXiv:2412.19437, section 2.1.2), in float32 at least. The chosen experts' scores, divided by their sum, weigh what
    they give; by default a single chosen one keeps its score as it is (Switch Transformer, arXiv:2101.03961), since 1
    would give the router no gradient (`norm_topk`). `routed_scale` multiplies all of it.

    With `n_group`, experts are chosen from the `topk_group` groups whose two best are the best together (DeepSeek-V3).

    No token is ever dropped, and none is padded: tokens are sorted by expert, and each expert reads its own at once.

    After each forward pass in training, `balance_loss` is what to add to the loss so that experts are used evenly:
        softmax   coeff · n Σ fᵢ Pᵢ over the batch (Switch Transformer, equation 4; f: share of choices, P: mean score)
        sigmoid   alpha · n Σ fᵢ Pᵢ over each sequence (DeepSeek-V3, equations 17 to 20), scores divided by their sum
    With `aux_free` mostly `selection_bias` balances: it is added to the scores where experts are chosen, not where they
    are weighed, and `rebalance` moves it against the load after each step (Wang et al. 2024, arXiv:2408.15664).
    """

    def __init__(self, n_embd: int, block: BlockConfig, dropout: float) -> None:
        super().__init__()
        self.block = block
        n, up_dim = block.n_routed, block.up_dim
        self.router = nn.Linear(n_embd, n, bias=False)
        # One matrix for each expert, laid out like nn.Linear's: (n, out, in).
        self.gate = nn.Parameter(torch.empty(n, up_dim, n_embd)) if block.non_linearity in GATES else None
        self.up = nn.Parameter(torch.empty(n, up_dim, n_embd))
        self.down = nn.Parameter(torch.empty(n, n_embd, up_dim))
        self.activation = Activation(block.non_linearity)
        self.dropout = Dropout(dropout)
        self.shared = None
        if block.n_shared:  # several are one that is as wide as all of them
            self.shared = make_feed_forward(n_embd, block.n_shared * up_dim, block.non_linearity, 0.0, bias=False)
        if block.aux_free:
            self.register_buffer("selection_bias", torch.zeros(n))
        # Tokens each expert was chosen for since the last `rebalance`, in training; whole numbers in any precision.
        self.register_buffer("load", torch.zeros(n, dtype=torch.long), persistent=False)
        self.balance_loss = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd)"""
        scores, weights, chosen = self._route(x)
        counts = chosen.flatten().bincount(minlength=len(self.load))  # (n,)
        if self.training:
            self.balance_loss = self._balance_loss(scores)
            self.load += counts
        flat = x.flatten(0, 1)  # (B·T, n_embd)
        y = self._run_experts(flat, weights.flatten(0, 1), chosen.flatten(0, 1), counts).view_as(x)
        if self.shared is not None:
            y = y + self.shared(x)
        return self.dropout(y)

    @torch.no_grad()
    def rebalance(self) -> None:
        """After a step: move the bias of overloaded experts down and of the others up by gamma, and count anew."""
        if self.block.aux_free:
            too_few = (self.load.sum() - len(self.load) * self.load).sign()  # 1, 0 or -1: below, at or above the mean
            self.selection_bias += self.block.gamma * too_few
        self.forget()

    @property
    def n_idle(self) -> int:
        """Parameters that a token does not pass through: those of experts that are not chosen for it."""
        matrices = [matrix for matrix in (self.gate, self.up, self.down) if matrix is not None]
        return (self.block.n_routed - self.block.n_chosen) * sum(matrix[0].numel() for matrix in matrices)

    @torch.no_grad()
    def margin(self, x: torch.Tensor) -> torch.Tensor:
        """How clear the choice of experts for (B, T, n_embd) is: the last chosen one's lead over the next, (B, T)."""
        scores, _, _ = self._route(x)
        ranked = self._ranked(scores).topk(self.block.n_chosen + 1).values
        return ranked[..., -2] - ranked[..., -1]

    def _ranked(self, scores: torch.Tensor) -> torch.Tensor:
        """By what experts are chosen, (B, T, n): scores and bias, -∞ in groups that are not among the best."""
        if not self.block.aux_free:
            return scores
        ranked = scores + self.selection_bias
        groups, kept = self.block.n_group or 1, self.block.topk_group
        if groups == 1 or kept in (None, groups):
            return ranked
        grouped = ranked.unflatten(-1, (groups, -1))  # (B, T, groups, n / groups)
        best = grouped.topk(2).values.sum(-1).topk(kept).indices  # (B, T, kept)
        is_out = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter_(-1, best, False)
        return grouped.masked_fill(is_out[..., None], -torch.inf).flatten(-2)

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """While entered, forward passes leave load and balance loss as they are."""
        load, balance_loss = self.load.clone(), self.balance_loss
        try:
            yield
        finally:
            self.load.copy_(load)
            self.balance_loss = balance_loss

    def forget(self) -> None:
        """Drop what the forward passes since the last `rebalance` have left: load and balance loss."""
        self.load.zero_()
        self.balance_loss = torch.zeros(())  # the old one would keep its graph alive

    def _route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores of all experts (B, T, n), and of the chosen ones weights and ids (B, T, n_chosen)."""
        precision = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):  # half of that would make ties and shift choices
            logits = F.linear(x.to(precision), self.router.weight.to(precision))
        scores = logits.sigmoid() if self.block.aux_free else logits.softmax(-1)
        chosen = self._ranked(scores).topk(self.block.n_chosen).indices
        weights = scores.gather(-1, chosen)
        if self.block.is_renormalized:
            weights = weights / (weights.sum(-1, keepdim=True) + LEAST_SUM)
        if self.block.routed_scale is not None:
            weights = weights * self.block.routed_scale
        return scores, weights.to(x.dtype), chosen

    def _run_experts(
        self, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor, counts: torch.Tensor
    ) -> torch.Tensor:
        """What the chosen experts give for each of N tokens, weighed and summed.

        A loop over the experts: on a CPU `F.grouped_mm` is as fast at best, and padding them to one product of all is
        slower (benchmarks/README.md).

        x: (N, n_embd); weights, chosen: (N, n_chosen); counts: for how many tokens each expert was chosen, (n,).
        """
        order = chosen.flatten().argsort(stable=True)  # choices, those of one expert side by side
        token = order // self.block.n_chosen
        pieces = x[token].split(counts.tolist())  # which on a GPU waits for it
        # Unbound at once: the gradient of self.up[i] would be as large as self.up, for every i.
        gates = [None] * len(pieces) if self.gate is None else self.gate.unbind()
        outputs = []
        for rows, gate, up, down in zip(pieces, gates, self.up.unbind(), self.down.unbind(), strict=True):
            if len(rows):
                wide = F.linear(rows, up)  # (n, up_dim)
                hidden = self.activation(wide) if gate is None else self.activation(F.linear(rows, gate)) * wide
                outputs.append(F.linear(hidden, down))  # (n, n_embd)
        weighed = torch.cat(outputs) * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, token, weighed)

    def _balance_loss(self, scores: torch.Tensor) -> torch.Tensor:
        """The loss of scores (B, T, n); what it counts as chosen is so by the scores alone, without the bias."""
        n, k = scores.shape[-1], self.block.n_chosen
        picked = torch.zeros_like(scores).scatter_(-1, scores.topk(k).indices, 1.0)  # (B, T, n)
        over = 1 if self.block.aux_free else (0, 1)  # a sequence, or the batch
        share = picked.mean(over) * n / k  # (B, n) or (n,), 1 where used evenly
        probability = (scores / scores.sum(-1, keepdim=True)).mean(over)
        weight = self.block.alpha if self.block.aux_free else self.block.coeff
        return weight * (share * probability).sum(-1).mean()
