"""What step 1 prints about a model: its costs, the sizes of its files, and what it exports as."""

from __future__ import annotations

from custom_llm.export.gguf_size import QUANT_TYPES, gguf_bytes, gguf_cache_bytes
from custom_llm.export.plan import ExportPlan
from custom_llm.model.costs import BATCH_SIZE, Costs


def summary(costs: Costs, plan: ExportPlan) -> list[str]:
    """A few lines for a person."""
    context = costs.config.block_size
    cache_bytes = gguf_cache_bytes(plan.shapes) if plan.exports else costs.cache_bytes
    active = "all" if costs.n_active == costs.n_parameters else _count(costs.n_active)
    lines = [
        f"  parameters  {_count(costs.n_parameters)}, {active} of them active for a token",
        f"  compute     {_count(costs.flops)} FLOPs forward for a token "
        f"(2 per multiply-add, attention over all {context} tokens included)",
        f"  KV cache    {_size(cache_bytes)} for a token in float16, "
        f"{_size(context * cache_bytes)} for {context} tokens",
        f"  training    about {_size(costs.training_bytes)} of tensors at batch_size {BATCH_SIZE}: "
        f"weights, gradients and optimizer {_size(costs.training_bytes - costs.activation_bytes)}, "
        f"activations {_size(costs.activation_bytes)}",
    ]
    if plan.exports:
        sizes = ", ".join(f"{name} {_size(gguf_bytes(plan.shapes, name))}" for name in QUANT_TYPES)
        lines.append(f"  GGUF        about {sizes}")
    return [*lines, f"  export      {plan.sentence}"]


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
