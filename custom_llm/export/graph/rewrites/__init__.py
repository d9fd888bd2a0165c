"""Exact rewrites: a graph becomes another one that computes the same function with other means.

Each takes a graph and returns a graph, the same one where there is nothing to do; none looks at what it is for. "Exact"
means: equal in real arithmetic (`centre`, `mirror`, paddings, constants), or in the limit of a scale so large that the
rest is below float32's rounding noise (ReLU from GELU or SiLU).
"""

from collections.abc import Callable

from custom_llm.export.graph.graph import Graph

Rewrite = Callable[[Graph], Graph]
