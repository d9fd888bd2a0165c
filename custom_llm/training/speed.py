"""How a step is computed faster: the precision of its products, compilation, CUDA graphs.

Weights, gradients and sums stay in float32 (mixed precision, Micikevicius et al. 2018, arXiv:1710.03740). bfloat16 has
float32's range, so that losses need no scaling (Kalamkar et al. 2019, arXiv:1905.12322).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from custom_llm.common.errors import UserError, is_out_of_memory
from custom_llm.common.steps import docs
from custom_llm.model import GPTLanguageModel

GAIN = 0.1  # share of a step's time that bfloat16 must save, as it is less exact
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
WARM_UP = 3  # passes before one is recorded, in which libraries choose their kernels

Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def precisions_of(device: torch.device, wanted: str) -> list[str]:
    """The precisions to choose among: the wanted one (UserError where that cannot be), or with `auto` the fast ones."""
    if wanted == "bfloat16" and device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UserError("--precision bfloat16 needs macOS 14 on this GPU; give --precision float32")
    if wanted != "auto":
        return [wanted]
    return ["float32", "bfloat16"] if multiplies_bfloat16(device) else ["float32"]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which products are computed in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def in_bfloat16(model: GPTLanguageModel) -> Iterator[None]:
    """While entered, the model's activations are in bfloat16, and so are copies of its matrices that they meet.

    On a CPU autocast leaves the sums between the layers and the norms in float32, and rounds what a norm gives for each
    matrix that takes it. The gradients of the copies are those of the matrices, and added up in float32; embeddings,
    norms, routers and the sums of the loss stay in float32.
    """
    routers = [mixture.router for mixture in model.mixtures]
    originals = [
        (module, name, parameter) for module in model.blocks.modules() if module not in routers
        for name, parameter in module._parameters.items()
        if parameter is not None and (parameter.dim() > 1 or isinstance(module, nn.Linear))
    ]  # fmt: skip
    try:
        for module, name, parameter in originals:
            module._parameters[name] = parameter.to(torch.bfloat16)
        model.compute_dtype = torch.bfloat16
        yield
    finally:
        for module, name, parameter in originals:
            module._parameters[name] = parameter
        model.compute_dtype = None


def keep_memory() -> None:
    """Let this process keep the memory of activations from one step to the next, where the C library is glibc.

    glibc returns it to the system as soon as 64 MB are free at its end, and the system clears it, page by page, before
    it gives it again: a tenth of a step. What is larger than 32 MiB is still returned.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
    mallopt(M_TRIM_THRESHOLD, -1)
    mallopt(M_MMAP_THRESHOLD, 32 << 20)


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16; without them these are slower than float32."""
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mps.is_macos_or_newer(14, 0)


def compiled(model: nn.Module) -> Callable:
    """What computes the same as `model` faster (torch.compile; Ansel et al. 2024, doi:10.1145/3620665.3640366).

    The first calls compile, for a minute or so; they raise UserError where there is no compiler, or it fails.
    """
    compiled_model = torch.compile(model)
    from torch._dynamo.exc import TorchDynamoException

    def call(*args: torch.Tensor, **options: bool) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        try:
            return compiled_model(*args, **options)
        except TorchDynamoException as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise UserError(
                f"--compile: the model cannot be compiled here ({lines[0].strip()[:200]}); leave it out, or install a "
                f"C++ compiler{docs('training')}"
            ) from None

    return call


class CudaGraphPass:
    """Does what `work` does, for batches of one shape, recorded as a CUDA graph and replayed.

    A small model's pass is a thousand kernels of a few microseconds each, which the processor starts more slowly than a
    GPU runs them. A graph starts all of them at once (https://developer.nvidia.com/blog/cuda-graphs). What cannot be
    recorded, such as a wait for the GPU, is done as ever.

    work: takes x and y, (B, T) each, and the weight of their loss, a scalar, all on the GPU; adds to the gradients of
    the parameters, and returns the loss.
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
        before = [parameter.grad for parameter in self._parameters]
        if before[0] is not self._gradients[0]:  # those that the graph adds to, with what was added up so far
            torch._foreach_zero_(self._gradients)
            if before[0] is not None:
                torch._foreach_add_(self._gradients, before)
            self._set_gradients(self._gradients)
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

    def _set_gradients(self, gradients: Iterable[torch.Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
