"""LoRA: training small matrices beside those of a model, which stay as they are (Hu et al. 2021, arXiv:2106.09685).

A matrix W of shape (out, in) is used as W + alpha / rank · B·A. A, (rank, in), begins random and B, (out, rank), with
zeros, so that the model begins as what it was. Only A and B have gradients and states of an optimizer. Afterwards the
product is added to W once (`merge`), and nothing about the model is different any more.

What is adapted: the projections of attention (all of latent attention's), and feed-forward layers, shared experts too.
Routers and routed experts, whose matrices are stacked, stay as they are, as do embeddings, output layer and norms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from custom_llm.config.training import LORA_TARGETS
from custom_llm.model.gpt import GPTLanguageModel
from custom_llm.model.layers import Dropout

A, B = ".lora_A", ".lora_B"  # how the names of an adapter's matrices end; before it stands that of their layer
# choice of `lora_targets` → the parts of a block whose layers are adapted
TARGETS = dict(zip(LORA_TARGETS, (("attn", "ffn"), ("attn",), ("ffn",)), strict=True))


class FrozenLinear(nn.Linear):
    """A linear layer that is not trained, so that its matrix may be kept in bfloat16 (see `keep_frozen`)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)"""
        if torch.is_autocast_enabled(x.device.type):  # which has products in one type by itself
            return super().forward(x)
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class LoRALinear(FrozenLinear):
    """A linear layer with an adapter: W·x + alpha / rank · B·A·dropout(x)."""

    lora_A: nn.Parameter  # (rank, in)
    lora_B: nn.Parameter  # (out, rank)

    def adapt(self, rank: int, alpha: float, dropout: float) -> None:
        """Add an adapter that does nothing yet. A is drawn as by its authors, and by PEFT."""
        like = dict(device=self.weight.device, dtype=torch.float32)
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale, self.lora_dropout = alpha / rank, Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)"""
        narrow = F.linear(self.lora_dropout(x), self.lora_A)  # (…, rank)
        return super().forward(x) + self.scale * F.linear(narrow, self.lora_B)


def freeze(model: GPTLanguageModel, last: int | None = None) -> None:
    """Let nothing be trained but the last blocks, if their number is given, and the norm behind them."""
    model.requires_grad_(False)
    if last is not None:
        for module in (*model.blocks[-last:], model.ln_f):
            module.requires_grad_(True)
    for _, layer in linear_layers(model):
        if not layer.weight.requires_grad:
            layer.__class__ = FrozenLinear


def add_lora(
    model: GPTLanguageModel, rank: int, alpha: float, dropout: float = 0.0, targets: str = "all",
    last: int | None = None,
) -> None:  # fmt: skip
    """Freeze a model and give its linear layers adapters; those of the last blocks only, if their number is given.

    Args:
        rank: of the products that are learnt.
        alpha: they are multiplied by alpha / rank.
        dropout: share of what an adapter reads that is dropped in training.
        targets: all, attention or feed_forward.
    """
    freeze(model)
    first = len(model.blocks) - (last or len(model.blocks))
    for name, layer in linear_layers(model):
        _, block, part = name.split(".")[:3]
        if int(block) >= first and part in TARGETS[targets]:
            layer.__class__ = LoRALinear  # the layer stays what others refer to, with what torch keeps in it
            layer.adapt(rank, alpha, dropout)


def linear_layers(model: GPTLanguageModel) -> Iterator[tuple[str, nn.Linear]]:
    """Names and linear layers inside the blocks, routers of experts left out."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name.startswith("blocks.") and not name.endswith(".router"):
            yield name, layer


def keep_frozen(model: GPTLanguageModel, dtype: torch.dtype) -> None:
    """Keep the matrices of frozen linear layers in another type from now on.

    Where products are computed in bfloat16, autocast rounds each matrix to it before each product. Kept in bfloat16
    it is rounded once, to the same numbers: all results stay the same to the bit, in half the memory and without that
    work. What is trained, norms, embeddings and the output layer stay in float32.
    """
    for _, layer in linear_layers(model):
        if isinstance(layer, FrozenLinear):
            layer.weight.data = layer.weight.data.to(dtype)


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes of the state dict: all of it but frozen parameters."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def merge(
    base: Mapping[str, torch.Tensor], trained: Mapping[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """The weights of a model after a training that has changed a part of them, in float32 and under ordinary names.

    Args:
        base: the weights before it; products of adapters are added to these, and not to what is kept in bfloat16.
        trained: the `trained_state` after it: other weights in place of some, and adapters beside some.
        alpha: what adapters have learnt is multiplied by alpha / rank.
    """
    copies: dict[int, torch.Tensor] = {}  # a matrix of two names stays one
    merged = {name: copies.setdefault(weight.data_ptr(), weight.float()) for name, weight in base.items()}
    for name, value in trained.items():
        if name.endswith(A):
            layer = name.removesuffix(A)
            with torch.autocast(value.device.type, enabled=False):  # within which the best weights are kept
                product = trained[f"{layer}{B}"].float() @ value.float()
            merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + alpha / len(value) * product
        elif not name.endswith(B):
            merged[name] = value
    return merged


def adapter_of(trained: Mapping[str, torch.Tensor], rank: int, alpha: float) -> dict[str, object]:
    """The content of `trained_model.lora.pth`."""
    weights = {name: value for name, value in trained.items() if name.endswith((A, B))}
    return {"rank": rank, "alpha": alpha, "weights": weights}
