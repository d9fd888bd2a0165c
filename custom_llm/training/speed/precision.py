"""The precision of products in training: float32, or bfloat16 where the device is faster with it.

Weights, gradients and sums stay in float32 (mixed precision, Micikevicius et al. 2018, arXiv:1710.03740). bfloat16 has
float32's range, so that losses need no scaling (Kalamkar et al. 2019, arXiv:1905.12322).
"""

from __future__ import annotations

import functools

import torch

from custom_llm.common.errors import UserError

GAIN = 0.1  # share of a step's time that bfloat16 must save, as it is less exact


def precisions_of(device: torch.device, wanted: str) -> list[str]:
    """The precisions to choose among: the one that is wanted, or those that may be fast with `auto`.

    UserError where the device cannot do what is wanted.
    """
    if wanted == "bfloat16" and device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UserError("--precision bfloat16 needs macOS 14 on this GPU; give --precision float32")
    if wanted != "auto":
        return [wanted]
    return ["float32", "bfloat16"] if multiplies_bfloat16(device) else ["float32"]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which products are computed in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16; without them these are slower than float32."""
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mps.is_macos_or_newer(14, 0)
