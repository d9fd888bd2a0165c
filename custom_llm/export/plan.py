"""What a model will be exported as, known as soon as it is configured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from custom_llm.blocks import NEEDS
from custom_llm.config import ModelConfig
from custom_llm.export.architectures import choose_architecture
from custom_llm.export.graph import Graph
from custom_llm.export.hf_classes import choose_class

# Changes to try, the least ones first, when a model does not export.
CHANGES: tuple[tuple[str, Any], ...] = (
    ("qk_norm", False), ("head_bias", False), ("tie_embeddings", False), ("non_linearity", "swiglu"),
    ("non_linearity", "gelu"), ("norm", "rms"), ("norm", "layer"), ("bias", False), ("pos_emb", "rope"),
    ("aux_free", False), ("moe", False), ("attn", "mha"),
)  # fmt: skip


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
    hf = choose_class(graph)
    hf_class = hf[0].name if hf else None
    found = choose_architecture(graph)
    if found is None:
        return ExportPlan(None, hf_class, refusal=refusal(config))
    architecture, prepared = found
    shapes = {name: tuple(x.shape) for name, x in architecture.tensors(prepared).items()}
    return ExportPlan(architecture.name, hf_class, shapes)


def refusal(config: ModelConfig) -> str:
    """Why a model does not export, in terms of its options, and the nearest one that does."""
    text = f"llama.cpp has no graph for {_describe(config)}"
    if config.layer_configs is None:  # all layers are alike, so one tells as much
        config = replace(config, n_layer=1)
    for n in (1, 2, 3):
        for changes in combinations(CHANGES, n):
            nearest = _changed(config, dict(changes)) if len({name for name, _ in changes}) == n else None
            if nearest and choose_architecture(Graph.of_config(nearest)):
                return f"{text}; nearest that exports: {' '.join(_flag(*change) for change in changes)}"
    return text


def _describe(config: ModelConfig) -> str:
    """The options that decide which graph a model needs."""
    c = config
    positions = {"learn": "a table of positions", "sin": "sinusoidal positions", "rope": "RoPE"}[c.pos_emb]
    parts = [positions, {"layer": "LayerNorm", "rms": "RMSNorm"}[c.norm], "biases" if c.bias else "no biases"]
    if c.qk_norm:
        parts.append("QK-norm")
    if c.head_bias:
        parts.append("a bias on the output layer")
    kinds = dict.fromkeys(_layer_words(block) for block in c.blocks)
    return ", ".join(parts) + " and " + " beside ".join(kinds)


def _layer_words(block: Any) -> str:
    experts = ""
    if block.moe:
        experts = f" in {block.n_act} of {block.n_exp} experts" + (" (aux_free)" if block.aux_free else "")
    return f"{block.attn} with {block.non_linearity}{experts}"


def _changed(config: ModelConfig, changes: dict[str, Any]) -> ModelConfig | None:
    """The configuration with other options, without what has no meaning then; None if impossible or the same."""
    if all(getattr(config, name) == value for name, value in changes.items()):
        return None
    values = {**config.to_dict(), **changes}
    for name in _meaningless(values):
        values[name] = ModelConfig.__dataclass_fields__[name].default
    try:
        return ModelConfig(**values)
    except ValueError:
        return None


def _meaningless(values: dict[str, Any]) -> Iterator[str]:
    """The options that the choices among `values` do not need."""
    if not values["moe"]:
        yield "aux_free"
    for (choice, value), names in NEEDS.items():
        inactive = values[choice] != value or (choice == "aux_free" and not values["moe"])
        if inactive and choice != "moe":
            yield from names
        elif inactive:
            yield from (name for name in names if name != "aux_free")
    if values["pos_emb"] != "rope":
        yield "rope_head_dim"


def _flag(name: str, value: Any) -> str:
    """An option as it is written on the command line."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {value}"
