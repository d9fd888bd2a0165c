"""What a model can be exported as: something that computes graphs of some kinds, and has its own names for tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from custom_llm.export.graph.accepts import Accepts
from custom_llm.export.graph.graph import Graph
from custom_llm.export.graph.rewrites.parts import Rewrite
from custom_llm.export.graph.tensor_names import Table


@dataclass(frozen=True)
class Target:
    """A class of Hugging Face, or a graph of llama.cpp.

    Args:
        name: what it is called there.
        accepts: the structures that it computes.
        names: of its tensors.
        steps: exact rewrites that bring models nearer to what it computes.
    """

    name: str
    accepts: Accepts
    names: Table
    steps: tuple[Rewrite, ...]

    def prepare(self, graph: Graph) -> Graph | None:
        """The graph as this computes it, or None if it cannot."""
        if not self.accepts.may_fit(graph.s):
            return None
        for step in self.steps:
            graph = step(graph)
        return graph if self.accepts.fits(graph.s) else None


SomeTarget = TypeVar("SomeTarget", bound=Target)


def choose(targets: Iterable[SomeTarget], graph: Graph) -> tuple[SomeTarget, Graph] | None:
    """The first target that computes what a graph computes, and the graph as it does, or None."""
    prepared = ((target, target.prepare(graph)) for target in targets)
    return next((found for found in prepared if found[1]), None)
