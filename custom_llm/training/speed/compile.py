"""A model compiled for the device it trains on (torch.compile; Ansel et al. 2024, doi:10.1145/3620665.3640366)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from custom_llm.common.errors import UserError
from custom_llm.common.steps import docs


def compiled(model: nn.Module) -> Callable:
    """What computes the same as `model`, with the same weights, faster; the first calls compile, for a minute or so.

    They raise UserError where there is no compiler, or it fails.
    """
    compiled_model = torch.compile(model)
    from torch._dynamo.exc import TorchDynamoException

    def call(*args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        try:
            return compiled_model(*args)
        except TorchDynamoException as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise UserError(
                f"--compile: the model cannot be compiled here ({lines[0].strip()[:200]}); leave it out, or install a "
                f"C++ compiler{docs('training')}"
            ) from None

    return call
