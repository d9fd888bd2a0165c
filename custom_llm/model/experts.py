"""A mixture of experts: many small feed-forward layers, of which a router chooses a few for each token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.blocks import GATED, BlockConfig
from custom_llm.model.feed_forward import Activation, make_feed_forward


class MixtureOfExperts(nn.Module):
    """Routed experts, and shared ones that see every token (DeepSeekMoE, Dai et al. 2024, arXiv:2401.06066).

    The router's scores are a softmax over the experts, or with `aux_free` a sigmoid each (DeepSeek-V3,
    arXiv:2412.19437, section 2.1.2). The chosen experts' scores, divided by their sum, weigh what they give; a single
    chosen one keeps its score as it is (Switch Transformer, arXiv:2101.03961), since 1 would give the router no
    gradient.

    No token is ever dropped, and none is padded: tokens are sorted by expert, and each expert reads its own at once.

    After each forward pass in training, `balance_loss` is what to add to the loss so that experts are used evenly:
        softmax   coeff · n Σ fᵢ Pᵢ over the batch (Switch Transformer, equation 4; f: share of choices, P: mean score)
        sigmoid   alpha · n Σ fᵢ Pᵢ over each sequence (DeepSeek-V3, equations 17 to 20)
    With `aux_free` mostly `selection_bias` balances: it is added to the scores where experts are chosen, not where they
    are weighed, and `rebalance` moves it against the load after each step (Wang et al. 2024, arXiv:2408.15664).
    """

    def __init__(self, n_embd: int, block: BlockConfig, dropout: float) -> None:
        super().__init__()
        self.block = block
        n, up_dim = block.n_routed, block.up_dim
        self.router = nn.Linear(n_embd, n, bias=False)
        # One matrix for each expert, laid out like nn.Linear's: (n, out, in).
        self.gate = nn.Parameter(torch.empty(n, up_dim, n_embd)) if block.non_linearity in GATED else None
        self.up = nn.Parameter(torch.empty(n, up_dim, n_embd))
        self.down = nn.Parameter(torch.empty(n, n_embd, up_dim))
        self.activation = Activation(block.non_linearity)
        self.dropout = nn.Dropout(dropout)
        # Several shared experts are one that is as wide as all of them.
        self.shared = (
            make_feed_forward(n_embd, block.n_shared * up_dim, block.non_linearity, 0.0, bias=False)
            if block.n_shared
            else None
        )
        if block.aux_free:
            self.register_buffer("selection_bias", torch.zeros(n))
        # Tokens each expert was chosen for since the last `rebalance`, in training.
        self.register_buffer("load", torch.zeros(n), persistent=False)
        self.balance_loss = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, n_embd) → (B, T, n_embd)"""
        scores, weights, chosen = self._route(x)
        if self.training:
            self.balance_loss = self._balance_loss(scores, chosen)
            self.load += chosen.flatten().bincount(minlength=len(self.load))
        flat = x.flatten(0, 1)  # (B·T, n_embd)
        y = self._run_experts(flat, weights.flatten(0, 1), chosen.flatten(0, 1)).view_as(x)
        if self.shared is not None:
            y = y + self.shared(x)
        return self.dropout(y)

    @torch.no_grad()
    def rebalance(self) -> None:
        """After a step: move the bias of overloaded experts down and of the others up by gamma, and count anew."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.load)
        if self.block.aux_free:
            self.selection_bias += self.block.gamma * (self.load.mean() - self.load).sign()
        self.load.zero_()

    def _route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores of all experts (B, T, n), and of the chosen ones weights and ids (B, T, n_chosen)."""
        logits = self.router(x).float()
        if self.block.aux_free:
            scores = logits.sigmoid()
            chosen = (scores + self.selection_bias).topk(self.block.n_chosen).indices
        else:
            scores = logits.softmax(-1)
            chosen = scores.topk(self.block.n_chosen).indices
        weights = scores.gather(-1, chosen)
        if self.block.n_chosen > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        return scores, weights.to(x.dtype), chosen

    def _run_experts(self, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """What the chosen experts give for each of N tokens, weighed and summed.

        Args:
            x: (N, n_embd).
            weights, chosen: (N, n_chosen).
        """
        order = chosen.flatten().argsort(stable=True)  # choices, those of one expert side by side
        token = order // self.block.n_chosen
        counts = chosen.flatten().bincount(minlength=len(self.load)).tolist()
        outputs = [self._expert(i, rows) for i, rows in enumerate(x[token].split(counts)) if len(rows)]
        weighed = torch.cat(outputs) * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, token, weighed)

    def _expert(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """Expert `i` on (n, n_embd)."""
        up = F.linear(x, self.up[i])
        hidden = self.activation(up) if self.gate is None else self.activation(F.linear(x, self.gate[i])) * up
        return F.linear(hidden, self.down[i])

    def _balance_loss(self, scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        n = scores.shape[-1]
        picked = torch.zeros_like(scores).scatter_(-1, chosen, 1.0)  # (B, T, n)
        if self.block.aux_free:
            share = picked.mean(1) * n / self.block.n_chosen  # (B, n), 1 where used evenly
            probability = (scores / scores.sum(-1, keepdim=True)).mean(1)
            return self.block.alpha * (share * probability).sum(-1).mean()
        share = picked.mean((0, 1)) * n / self.block.n_chosen  # (n,)
        return self.block.coeff * (share * scores.mean((0, 1))).sum()
