"""What a model costs before it is trained: parameters, compute, caches, memory.

Nothing is run. What is not counted exactly but estimated says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from custom_llm.config.block import GATED, BlockConfig
from custom_llm.config.model import ModelConfig
from custom_llm.config.training import TrainConfig
from custom_llm.model.gpt import GPTLanguageModel

FLOAT = 4  # bytes of float32, in which models are trained
HALF = 2  # bytes of float16, in which llama.cpp keeps its cache
BATCH_SIZE: int = TrainConfig.batch_size


@dataclass(frozen=True)
class Costs:
    """Counts for one model. Bytes are of float32 unless said otherwise."""

    config: ModelConfig
    n_parameters: int
    n_active: int  # parameters a token passes through: without the experts that are not chosen for it
    flops: int  # of the forward pass for a token, see `_flops`
    cache_bytes: int  # for a token, in float16
    optimizer_bytes: int  # states that AdamW and Muon keep
    activation_bytes: int  # for a batch of BATCH_SIZE, an estimate

    @property
    def training_bytes(self) -> int:
        """Weights, gradients, optimizer states and activations.

        A process takes more: on a CPU 1.3 to 1.6 times as much was measured, and twice as much for small models.
        """
        return 2 * FLOAT * self.n_parameters + self.optimizer_bytes + self.activation_bytes


def costs_of(config: ModelConfig) -> Costs:
    """The costs of the model that `config` describes."""
    outline = GPTLanguageModel.outline(config)
    idle = sum(_idle_parameters(config, block) for block in config.blocks)
    inside = sum(p.numel() for p in outline.blocks.parameters() if p.dim() > 1)
    routers = sum(mixture.router.weight.numel() for mixture in outline.mixtures)
    n_parameters = outline.n_parameters()
    return Costs(
        config=config,
        n_parameters=n_parameters,
        n_active=n_parameters - idle,
        flops=_flops(config, inside - idle),
        cache_bytes=HALF * sum(cached_numbers(config, block) for block in config.blocks),
        # Muon keeps one number for each in the matrices inside the blocks but routers; AdamW two for all others.
        optimizer_bytes=FLOAT * (2 * n_parameters - (inside - routers)),
        activation_bytes=FLOAT * BATCH_SIZE * config.block_size * _activations(config),
    )


def cached_numbers(config: ModelConfig, block: BlockConfig) -> int:
    """Numbers that attention keeps of each token: keys and values, or the latent and the key that rotates."""
    if block.attn == "mla":
        return block.kv_latent_dim + (block.rope_head_dim or 0)
    return 2 * block.kv_heads * (config.n_embd // block.n_head)


def _idle_parameters(config: ModelConfig, block: BlockConfig) -> int:
    if not block.moe:
        return 0
    return (block.n_routed - block.n_chosen) * _n_matrices(block) * block.up_dim * config.n_embd


def _n_matrices(block: BlockConfig) -> int:
    return 3 if block.non_linearity in GATED else 2


def _flops(config: ModelConfig, active_inside: int) -> int:
    """Floating-point operations of the forward pass for a token that attends to block_size tokens.

    A matrix of n numbers costs 2 n, a product and a sum each. What is not in matrices is left out.
    """
    products = active_inside + config.n_embd * config.vocab_size
    for block in config.blocks:
        rotating = block.n_head * (block.rope_head_dim or 0)
        # Queries with keys, and weights with values, which are padded to the width of queries.
        products += config.block_size * 2 * (config.n_embd + rotating)
    return 2 * products


def _activations(config: ModelConfig) -> int:
    """Numbers kept of a token from the forward pass for the backward pass, about: what PyTorch keeps on a CPU."""
    per_norm = (2 if config.norm == "layer" else 3) * config.n_embd  # RMSNorm keeps what is not yet scaled, too
    total = per_norm + 4 * config.vocab_size  # logits, logarithms of probabilities, and the gradients of both
    for block in config.blocks:
        total += 2 * per_norm + _attention_activations(config, block) + _feed_forward_activations(config, block)
        total += 2 * config.n_embd if config.dropout else 0  # which ones were dropped
    return total


def _attention_activations(config: ModelConfig, block: BlockConfig) -> int:
    c, b = config, block
    sums = b.n_head  # that weights were divided by; the weights are computed again
    if b.attn == "mla":
        rope_head_dim = b.rope_head_dim or 0
        latents = 3 * (b.q_latent_dim + b.kv_latent_dim) + rope_head_dim
        padded = c.n_embd + b.n_head * rope_head_dim
        return 4 * padded + c.n_embd + latents + sums
    keys_and_values = 2 * b.kv_heads * (c.n_embd // b.n_head)
    total = 2 * c.n_embd + keys_and_values + sums
    total += 2 * c.n_embd + keys_and_values if c.qk_norm else 0
    return total + (c.n_embd if c.pos_emb == "rope" else 0)


def _feed_forward_activations(config: ModelConfig, block: BlockConfig) -> int:
    inner = (4 if block.non_linearity in GATED else 2) * block.up_dim
    if not block.moe:
        return inner
    return block.n_act * inner + 3 * block.n_chosen * config.n_embd + 2 * block.n_routed
