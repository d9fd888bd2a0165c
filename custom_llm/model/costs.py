"""What a model costs before it is trained: parameters, compute, caches, memory, and sizes of its files.

Nothing is run. What is not counted exactly but estimated says so.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from custom_llm.blocks import GATED, BlockConfig
from custom_llm.config import ModelConfig, TrainConfig
from custom_llm.model.gpt import GPTLanguageModel

FLOAT = 4  # bytes of float32, in which models are trained
HALF = 2  # bytes of float16, in which llama.cpp keeps its cache
BATCH_SIZE: int = TrainConfig.batch_size

# Bytes of a block of values, and how many values it holds.
TYPES = {
    "F32": (4, 1), "F16": (2, 1), "Q8_0": (34, 32), "Q4_0": (18, 32), "Q5_0": (22, 32), "Q5_1": (24, 32),
    "Q4_K": (144, 256), "Q5_K": (176, 256), "Q6_K": (210, 256),
}  # fmt: skip
FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # where rows are no multiple of 256
QUANT_TYPES = ("F16", "Q8_0", "Q4_K_M", "Q4_0")
ALIGNMENT = 32  # tensors begin at multiples of it
# As a token, a character beyond ASCII has some bytes, a length, a type, and a rule that merges its bytes.
BYTES_PER_TOKEN = 31
BYTES_OF_METADATA = 750


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

    def in_words(self, shapes: dict[str, tuple[int, ...]]) -> list[str]:
        """A few lines for a person.

        Args:
            shapes: see `gguf_bytes`; empty where the model becomes no GGUF file.
        """
        context = self.config.block_size
        cache_bytes = gguf_cache_bytes(shapes) if shapes else self.cache_bytes
        active = "all" if self.n_active == self.n_parameters else _count(self.n_active)
        lines = [
            f"  parameters  {_count(self.n_parameters)}, {active} of them active for a token",
            f"  compute     {_count(self.flops)} FLOPs forward for a token "
            f"(2 per multiply-add, attention over all {context} tokens included)",
            f"  KV cache    {_size(cache_bytes)} for a token in float16, "
            f"{_size(context * cache_bytes)} for {context} tokens",
            f"  training    about {_size(self.training_bytes)} of tensors at batch_size {BATCH_SIZE}: "
            f"weights, gradients and optimizer {_size(self.training_bytes - self.activation_bytes)}, "
            f"activations {_size(self.activation_bytes)}",
        ]
        if shapes:
            sizes = ", ".join(f"{name} {_size(gguf_bytes(shapes, name))}" for name in QUANT_TYPES)
            lines.append(f"  GGUF        about {sizes}")
        return lines


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


def gguf_cache_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes that llama.cpp keeps of each token for a GGUF file, whose heads may be padded to those of wider layers.

    With flash attention, its default; without it, the values of every layer are as wide as those of the widest.

    Args:
        shapes: see `gguf_bytes`.
    """
    rows = {name: shape[0] for name, shape in shapes.items()}
    total = 0
    for name, n_rows in rows.items():
        if name.endswith(("attn_k.weight", "attn_v.weight", "attn_kv_a_mqa.weight")):
            total += n_rows
        elif name.endswith("attn_qkv.weight"):
            total += n_rows - shapes[name.replace("attn_qkv", "attn_output")][1]  # queries are as wide as their output
    return HALF * total


def gguf_bytes(shapes: dict[str, tuple[int, ...]], quant_type: str) -> int:
    """Size of a GGUF file in one of `QUANT_TYPES`; its metadata are estimated.

    Args:
        shapes: names and shapes of its tensors, shapes in PyTorch's order.
    """
    n_layer = 1 + max((_layer(name) for name in shapes), default=0)
    routers = [shape for name, shape in shapes.items() if name.endswith("ffn_gate_inp.weight")]
    n_expert = routers[0][0] if routers else 0
    total = BYTES_OF_METADATA + BYTES_PER_TOKEN * shapes["token_embd.weight"][0]
    for name, shape in shapes.items():
        kind = _tensor_type(name, shape, quant_type, n_layer, n_expert, tied="output.weight" not in shapes)
        n_bytes, n_values = TYPES[kind]
        size = math.prod(shape) // n_values * n_bytes
        description = 24 + len(name) + 8 * len(shape)
        total += description + -(-size // ALIGNMENT) * ALIGNMENT
    return total


def _tensor_type(name: str, shape: tuple[int, ...], quant_type: str, n_layer: int, n_expert: int, tied: bool) -> str:
    """The type a tensor has in a file, by the rules of llama.cpp (src/llama-quant.cpp)."""
    is_kept = "_norm.weight" in name or "ffn_gate_inp" in name or name == "position_embd.weight"
    if len(shape) < 2 or not name.endswith("weight") or is_kept:
        return "F32"
    kind = {"Q4_K_M": "Q4_K"}.get(quant_type, quant_type)
    if kind == "F16":
        return kind
    row = shape[-1]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        kind = "Q8_0" if row % TYPES[kind][1] or kind == "Q8_0" else "Q6_K"
    elif re.search(r"attn_(qkv|kv_b|v)\.weight", name):
        if quant_type == "Q4_K_M" and _has_more_bits(_layer(name), n_layer):
            kind = "Q6_K"
        kind = "Q8_0" if n_expert == 8 else kind
    elif "attn_k.weight" in name:
        kind = "Q8_0" if n_expert == 8 else kind
    elif "ffn_down" in name and quant_type == "Q4_K_M" and _has_more_bits(_layer(name), n_layer):
        kind = "Q6_K"
    elif "attn_output.weight" in name and quant_type == "Q4_K_M" and n_expert == 8:
        kind = "Q5_K"
    if row % TYPES[kind][1]:
        kind = FALLBACKS.get(kind, kind)
    return "F16" if row % TYPES[kind][1] else kind


def _has_more_bits(layer: int, n_layer: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    return layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else 0


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
    """Numbers kept of a token from the forward pass for the backward pass, about: what PyTorch keeps on a CPU.

    With dropout, attention keeps its weights as well; a GPU mostly does not.
    """
    per_norm = (2 if config.norm == "layer" else 3) * config.n_embd  # RMSNorm keeps what is not yet scaled, too
    total = per_norm + 4 * config.vocab_size  # logits, logarithms of probabilities, and the gradients of both
    for block in config.blocks:
        total += 2 * per_norm + _attention_activations(config, block) + _feed_forward_activations(config, block)
        total += 2 * config.n_embd if config.dropout else 0  # which ones were dropped
    return total


def _attention_activations(config: ModelConfig, block: BlockConfig) -> int:
    c, b = config, block
    weights = 3 * b.n_head * c.block_size if c.dropout else b.n_head
    if b.attn == "mla":
        rope_head_dim = b.rope_head_dim or 0
        latents = 3 * (b.q_latent_dim + b.kv_latent_dim) + rope_head_dim
        padded = c.n_embd + b.n_head * rope_head_dim
        return 4 * padded + c.n_embd + latents + weights
    keys_and_values = 2 * b.kv_heads * (c.n_embd // b.n_head)
    total = 2 * c.n_embd + keys_and_values + weights
    total += 2 * c.n_embd + keys_and_values if c.qk_norm else 0
    return total + (c.n_embd if c.pos_emb == "rope" else 0)


def _feed_forward_activations(config: ModelConfig, block: BlockConfig) -> int:
    inner = (4 if block.non_linearity in GATED else 2) * block.up_dim
    if not block.moe:
        return inner
    return block.n_act * inner + 3 * block.n_chosen * config.n_embd + 2 * block.n_routed


def _count(number: int) -> str:
    """9890000 as "9.89M"."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return f"{number / 1e6:.2f}M"


def _size(n_bytes: int) -> str:
    """20100000 as "20.1 MB"."""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.1f} kB"
