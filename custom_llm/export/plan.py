"""What a model will be exported as, known as soon as it is configured."""

from __future__ import annotations

from dataclasses import dataclass, field

from custom_llm.config import ModelConfig
from custom_llm.export.architectures import choose_architecture
from custom_llm.export.graph import Graph
from custom_llm.export.hf_classes import in_directory
from custom_llm.export.nearest import refusal


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
