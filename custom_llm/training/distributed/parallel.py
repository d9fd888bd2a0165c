"""A model on several processes: a copy in each (ddp), or a part of every weight in each (fsdp).

With a part, a weight is a DTensor: its shape is that of the whole, its memory that of the part. What is kept in files
is always whole, so that any number of processes can resume it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from custom_llm.model import GPTLanguageModel
from custom_llm.model.lora import trained_state
from custom_llm.training.distributed.processes import Processes


def parallelize(model: GPTLanguageModel, strategy: str, processes: Processes, device: torch.device) -> nn.Module:
    """`model` on `device`, and what to call in its place for a forward pass. All processes call it together.

    The gradients of a backward pass are then the means of all processes'.

    Args:
        strategy: ddp (Li et al. 2020, arXiv:2006.15704), which sends gradients while the backward pass goes on; or fsdp
            (Zhao et al. 2023, arXiv:2304.11277), which gathers a block's weights before it runs, and drops them again.
    """
    if processes.size == 1:
        return model.to(device)
    if strategy == "ddp":
        # What experts count in buffers is added up once a step, and the biases that follow from it are the same.
        return DistributedDataParallel(model.to(device), forward_sync_buffers=False, gradient_as_bucket_view=True)
    from torch.distributed import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.size,))
    for module in [*model.blocks, model]:  # each is moved to the device as it is divided: the whole need not fit there
        fully_shard(module, mesh=mesh)
    return model


def send_gradients(called: nn.Module, now: bool) -> None:
    """Say whether the next backward pass brings the processes' gradients together, or only adds to each one's own.

    With fsdp each of them does, since the gradients of the whole model need not fit, either.
    """
    if isinstance(called, DistributedDataParallel):
        called.require_backward_grad_sync = now


def is_divided(tensor: Any) -> bool:
    """Whether this process has only a part of it (or rather is told so: a DTensor)."""
    return hasattr(tensor, "full_tensor")  # whose class takes half a second to import


def gathered(state: Any, processes: Processes) -> Any:
    """The lists and dicts of a state with whole tensors; only rank 0 gets those that were divided, on its CPU.

    All processes call it together.
    """
    if isinstance(state, dict):
        return {key: gathered(value, processes) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(gathered(value, processes) for value in state)
    if not is_divided(state):
        return state
    full = whole(state)
    return full.cpu() if processes.rank == 0 else None


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that is not divided. All processes call it together."""
    return tensor.full_tensor() if is_divided(tensor) else tensor


def load_model_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """`model.load_state_dict` of whole tensors, whether the model is divided or not; frozen ones may be missing."""
    own = model.state_dict()
    found = model.load_state_dict({n: divided_like(own.get(n), tensor) for n, tensor in state.items()}, strict=False)
    if missing := [*found.unexpected_keys, *(set(found.missing_keys) & trained_state(model).keys())]:
        raise ValueError(f"the weights {', '.join(missing)} are missing, or are none of the model's")


def divided_like(parameter: Any, value: Any) -> Any:
    """This process's part of a tensor, if the parameter is divided and of the same shape; else the value as it is."""
    if not is_divided(parameter) or getattr(value, "shape", None) != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
