"""What a model will be exported as, and what it costs, said when it is configured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from custom_llm.config.model import ModelConfig
from custom_llm.config.training import BASE_WINDOW, FROM_BASE
from custom_llm.export.gguf.architectures import choose_architecture
from custom_llm.export.gguf.quantize import BLOCKS, Shapes, tensor_types
from custom_llm.export.graph.graph import Graph
from custom_llm.export.graph.rewrites.layers import POSITION_ROWS
from custom_llm.export.huggingface.classes import in_directory
from custom_llm.export.suggest import refusal
from custom_llm.model.costs import BATCH_SIZE, HALF, Costs, costs_of, training_bytes

SMALLEST_GPT2 = 124_439_808  # parameters
LORA_RANK = 16  # which a plan names
CHARACTERS = 100  # that a text in one language has, about
QUANT_TYPES = ("F16", "Q8_0", "Q4_K_M", "Q4_0")  # of which a plan names the sizes
ALIGNMENT = 32  # tensors begin at multiples of it
# As a token, a character beyond ASCII has some bytes, a length, a type, and a rule that merges its bytes.
BYTES_PER_TOKEN = 31
BYTES_OF_METADATA = 750


def summary(costs: Costs, plan: ExportPlan, from_base: bool = False) -> list[str]:
    """A few lines for a person who makes a first model.

    from_base: the training starts from another model, whose tokens are known.
    """
    share = costs.n_parameters / SMALLEST_GPT2
    size = f"{share:,.1f} times" if share >= 1 else f"1/{1 / share:,.0f} of"
    lines = [
        f"  size        {size} the smallest GPT-2; smaller learns faster, larger learns more from much text",
        _memory_from_base(costs.config)
        if from_base
        else f"  memory      about {_size(costs.training_bytes)} while it trains, at batch_size {BATCH_SIZE}",
    ]
    if plan.exports:
        sizes = [_size(gguf_bytes(plan.shapes, name)) for name in ("Q8_0", "Q4_0")]
        lines.append(f"  file        about {sizes[0]} as Q8_0, which is nearly exact, {sizes[1]} as Q4_0")
    if costs.config.vocab_size > CHARACTERS and not from_base:
        of_characters = costs_of(replace(costs.config, vocab_size=CHARACTERS)).n_parameters
        lines.append(
            f"  vocabulary  {costs.config.vocab_size:,} until step 2 has the text: by characters, its default, about "
            f"{CHARACTERS}, and the model {_count(of_characters)}"
        )
    return [*lines, f"  export      {plan.sentence}"]


def _memory_from_base(config: ModelConfig) -> str:
    """What training takes that starts from another model, with the defaults for it, in both ways."""
    import psutil

    sizes = min(BASE_WINDOW, config.block_size), FROM_BASE["batch_size"]
    whole, lora = _size(training_bytes(config, *sizes)), _size(training_bytes(config, *sizes, lora=LORA_RANK))
    free = _size(psutil.virtual_memory().available)
    return f"  memory      about {whole} while all of it trains, {lora} with --lora {LORA_RANK}; {free} are free here"


def figures(costs: Costs, plan: ExportPlan) -> list[str]:
    """The same for a person who knows the field."""
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


@dataclass(frozen=True)
class ExportPlan:
    """The GGUF architecture and the Hugging Face class that carry a model (None: there is none)."""

    architecture: str | None
    hf_class: str | None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of the GGUF file's tensors
    refusal: str = ""  # what has no graph in llama.cpp, and what is nearest

    @property
    def exports(self) -> bool:
        """Whether there is a GGUF file for the model."""
        return self.architecture is not None

    @property
    def sentence(self) -> str:
        """One line for a person."""
        hf = f"Hugging Face: {self.hf_class}" if self.hf_class else "Hugging Face has no class for it"
        if self.exports:
            return f"exports to GGUF as `{self.architecture}` ({hf})"
        return f"trains, but {self.refusal}"


def plan_export(config: ModelConfig) -> ExportPlan:
    """What a model of this configuration will be exported as."""
    graph = Graph.of_config(config)
    hf, as_written = in_directory(graph)
    hf_class = hf.name if hf else None
    found = choose_architecture(as_written)
    if found is None:
        return ExportPlan(None, hf_class, refusal=refusal(config))
    architecture, prepared = found
    shapes = {name: tuple(x.shape) for name, x in architecture.tensors(prepared).items()}
    return ExportPlan(architecture.name, hf_class, shapes)


def gguf_cache_bytes(shapes: Shapes) -> int:
    """Bytes that llama.cpp keeps of each token for a GGUF file, whose heads may be padded to those of wider layers.

    With flash attention, its default; without it, the values of every layer are as wide as those of the widest.
    """
    total = 0
    for name, (n_rows, *_) in shapes.items():
        if name.endswith(("attn_k.weight", "attn_v.weight", "attn_kv_a_mqa.weight")):
            total += n_rows
        elif name.endswith("attn_qkv.weight"):
            total += n_rows - shapes[name.replace("attn_qkv", "attn_output")][1]  # queries are as wide as their output
    return HALF * total


def gguf_bytes(shapes: Shapes, quant_type: str) -> int:
    """Size of a GGUF file in one of `QUANT_TYPES`; its metadata are estimated."""
    total = BYTES_OF_METADATA + BYTES_PER_TOKEN * shapes["token_embd.weight"][0]
    for name, kind in tensor_types(shapes, quant_type).items():
        n_bytes, n_values = BLOCKS[kind]
        size = math.prod(shapes[name]) // n_values * n_bytes
        description = 24 + len(name) + 8 * len(shapes[name])
        total += description + -(-size // ALIGNMENT) * ALIGNMENT
    return total


def context_advice(config: ModelConfig) -> str:
    """A sentence about a window that other programs go beyond; empty where they keep to it."""
    n, rows = config.block_size, -(-config.block_size // POSITION_ROWS) * POSITION_ROWS
    if config.pos_emb == "rope" or n == rows:
        return ""
    return (
        f"llama.cpp and Ollama round {n:,} tokens up to {rows:,} and write worse past {n:,}; --block_size {rows} or "
        "--pos_emb rope avoids it"
    )
