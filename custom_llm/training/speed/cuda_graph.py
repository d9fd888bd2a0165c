"""A pass through a model, recorded as a CUDA graph and replayed.

A small model's pass is a thousand kernels of a few microseconds each, which the processor starts more slowly than a GPU
runs them. A graph starts all of them at once (https://developer.nvidia.com/blog/cuda-graphs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from custom_llm.common.errors import is_out_of_memory

WARM_UP = 3  # passes before one is recorded, in which libraries choose their kernels

Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class CudaGraphPass:
    """Does what `work` does, for batches of one shape.

    What cannot be recorded, such as a wait for the GPU, is done as ever.

    Args:
        work: takes x and y, (B, T) each, and the weight of their loss, a scalar, all on the GPU; adds to the gradients
            of the parameters, and returns the loss.
    """

    def __init__(self, work: Pass, parameters: Iterable[torch.Tensor]) -> None:
        self._work, self._parameters = work, [p for p in parameters if p.requires_grad]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_possible = True

    def __call__(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The work; the loss is good until the next call. RuntimeError where the memory does not suffice."""
        if self._is_possible and (self._graph is None or self._inputs[0].shape != x.shape):
            self._record(x, y, weight)
        if self._graph is None:
            return self._work(x, y, weight)
        for mine, given in zip(self._inputs, (x, y, weight), strict=True):
            mine.copy_(given)
        self._use_own_gradients()
        self._graph.replay()
        return self._loss

    def _record(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> None:
        """Record the work, leaving gradients and random numbers as they are."""
        self._graph = None
        before = [parameter.grad for parameter in self._parameters]
        random_state = torch.cuda.get_rng_state()
        self._inputs = [tensor.clone() for tensor in (x, y, weight)]
        try:
            stream = torch.cuda.Stream()  # as recording does it
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._set_gradients([None] * len(self._parameters))
                    self._work(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._gradients = [torch.zeros_like(parameter) for parameter in self._parameters]
            self._set_gradients(self._gradients)
            torch.cuda.empty_cache()  # the graph has memory of its own
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._loss = self._work(*self._inputs)
            self._graph = graph
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._is_possible = False
        finally:
            torch.cuda.set_rng_state(random_state)
            self._set_gradients(before)

    def _use_own_gradients(self) -> None:
        """Let the parameters have those that the graph adds to, with what was added up so far."""
        before = [parameter.grad for parameter in self._parameters]
        if before[0] is self._gradients[0]:
            return
        torch._foreach_zero_(self._gradients)
        if before[0] is not None:
            torch._foreach_add_(self._gradients, before)
        self._set_gradients(self._gradients)

    def _set_gradients(self, gradients: Iterable[torch.Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
