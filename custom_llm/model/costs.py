"""What a model costs before it is trained: parameters, compute, caches, memory.

Nothing is run. What is not counted exactly but estimated says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from custom_llm.config.model import ModelConfig
from custom_llm.config.training import TrainConfig
from custom_llm.model.feed_forward import GATES
from custom_llm.model.gpt import GPTLanguageModel
from custom_llm.model.loss import AT_ONCE

FLOAT = 4  # bytes of float32, in which models are trained
HALF = 2  # bytes of float16, in which llama.cpp keeps its cache
BATCH_SIZE: int = TrainConfig.batch_size


@dataclass(frozen=True)
class Costs:
    """Counts for one model. Bytes are of float32 unless said otherwise."""

    config: ModelConfig
    n_parameters: int
    n_active: int  # parameters a token passes through: without the experts that are not chosen for it
    flops: int  # of the forward pass for a token, see `costs_of`
    cache_bytes: int  # for a token, in float16
    optimizer_bytes: int  # states that AdamW and Muon keep
    activation_bytes: int  # for a batch of BATCH_SIZE, an estimate

    @property
    def training_bytes(self) -> int:
        """Weights, gradients, optimizer states and activations.

        A process takes more: on a CPU 1.3 to 1.6 times as much was measured, and twice as much for small models.
        """
        return 2 * FLOAT * self.n_parameters + self.optimizer_bytes + self.activation_bytes


def training_bytes(
    config: ModelConfig, window: int, batch_size: int, lora: int | None = None, train_layers: int | None = None,
    averaged: bool = False,
) -> int:  # fmt: skip
    """About the memory that a training takes: all of it, or what saving takes at its end, whichever is more.

    A trained weight costs itself, its best value so far, its gradient and two moments of an optimizer; a frozen one
    itself, and twice more while a file of all weights is written. All are counted in float32.

    Args:
        window, batch_size: tokens of a window, windows of a step.
        lora: the rank of LoRA for all its targets; None or 0: without.
        train_layers: the last layers that are trained; None: all.
        averaged: whether an average of the trained weights is kept as well.
    """
    outline = GPTLanguageModel.outline(config)
    n_parameters = outline.n_parameters()
    n_trained = n_parameters
    if lora:
        blocks = outline.blocks[-(train_layers or len(outline.blocks)) :]
        layers = [layer for block in blocks for layer in block.modules() if isinstance(layer, nn.Linear)]
        n_trained = sum(lora * (layer.in_features + layer.out_features) for layer in layers)
        n_parameters += n_trained
    elif train_layers:
        n_trained = sum(p.numel() for p in outline.blocks[-train_layers:].parameters())
    costs = costs_of(config)
    activations = costs.activation_bytes * batch_size * window // (BATCH_SIZE * config.block_size)
    of_trained = FLOAT * n_trained * (5 + averaged)
    frozen = FLOAT * (n_parameters - n_trained)
    return of_trained + frozen + max(activations, 2 * frozen)


def costs_of(config: ModelConfig) -> Costs:
    """The costs of the model that `config` describes.

    The forward pass is for a token that attends to block_size tokens. A matrix of n numbers costs 2 n operations, a
    product and a sum each; what is not in matrices is left out.
    """
    outline = GPTLanguageModel.outline(config)
    attentions = [block.attn for block in outline.blocks]
    n_parameters = outline.n_parameters()
    inside = sum(p.numel() for p in outline.blocks.parameters() if p.dim() > 1)
    routers = sum(mixture.router.weight.numel() for mixture in outline.mixtures)
    idle = sum(mixture.n_idle for mixture in outline.mixtures)
    # Queries with keys, and weights with values, which are padded to the width of queries.
    scores = config.block_size * sum(2 * attention.n_head * attention.query_width for attention in attentions)

    # What PyTorch keeps of a token on a CPU, about, from the forward pass for the backward pass.
    per_norm = 2 * config.n_embd
    kept = per_norm
    kept += sum(attention.n_activations for attention in attentions)
    for block in config.blocks:
        inner = (4 if block.non_linearity in GATES else 2) * block.up_dim
        if block.moe:
            inner = block.n_act * inner + 3 * block.n_chosen * config.n_embd + 2 * block.n_routed
        kept += 2 * per_norm + inner + (2 * config.n_embd if config.dropout else 0)  # which ones were dropped
    tokens = BATCH_SIZE * config.block_size
    if tokens * config.vocab_size <= AT_ONCE:
        in_loss = 4 * tokens * config.vocab_size  # logits, logarithms of probabilities, and the gradients of both
    else:  # in pieces, with the gradient of the output layer before that of all others
        in_loss = AT_ONCE + config.n_embd * config.vocab_size
    return Costs(
        config=config,
        n_parameters=n_parameters,
        n_active=n_parameters - idle,
        flops=2 * (inside - idle + config.n_embd * config.vocab_size + scores),
        cache_bytes=HALF * sum(attention.n_cached for attention in attentions),
        # Muon keeps one number for each in the matrices inside the blocks but routers; AdamW two for all others.
        optimizer_bytes=FLOAT * (2 * n_parameters - (inside - routers)),
        activation_bytes=FLOAT * (tokens * kept + in_loss),
    )
