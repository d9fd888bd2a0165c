"""Where a model is trained."""

from __future__ import annotations

import torch

from custom_llm.errors import UserError
from custom_llm.torchrun import local_rank
from custom_llm.training.distributed import Processes


def pick_device(name: str | None, processes: Processes) -> torch.device:
    """The named device, or the fastest there is. Each of several processes has a GPU of its own."""
    there = ["cpu"]
    there += ["cuda"] if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() and processes.size == 1 else []
    if name is not None and name not in there:
        raise UserError(f"--device {name}: this machine has {', '.join(there)}")
    device = torch.device(name or there[-1])
    if device.type == "cuda" and processes.size > 1:
        n = torch.cuda.device_count()
        if local_rank() >= n:
            raise UserError(f"--device cuda: this machine has {n} GPUs; start torchrun with --nproc-per-node {n}")
        torch.cuda.set_device(local_rank())
    return device
