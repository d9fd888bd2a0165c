"""How large a GGUF file and its cache will be, from the names and shapes of its tensors."""

from __future__ import annotations

import math
import re

from custom_llm.model.costs import HALF

# Bytes of a block of values, and how many values it holds.
TYPES = {
    "F32": (4, 1), "F16": (2, 1), "Q8_0": (34, 32), "Q4_0": (18, 32), "Q5_0": (22, 32), "Q5_1": (24, 32),
    "Q4_K": (144, 256), "Q5_K": (176, 256), "Q6_K": (210, 256),
}  # fmt: skip
FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # where rows are no multiple of 256
QUANT_TYPES = ("F16", "Q8_0", "Q4_K_M", "Q4_0")
ALIGNMENT = 32  # tensors begin at multiples of it
# As a token, a character beyond ASCII has some bytes, a length, a type, and a rule that merges its bytes.
BYTES_PER_TOKEN = 31
BYTES_OF_METADATA = 750


def gguf_cache_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes that llama.cpp keeps of each token for a GGUF file, whose heads may be padded to those of wider layers.

    With flash attention, its default; without it, the values of every layer are as wide as those of the widest.

    Args:
        shapes: see `gguf_bytes`.
    """
    rows = {name: shape[0] for name, shape in shapes.items()}
    total = 0
    for name, n_rows in rows.items():
        if name.endswith(("attn_k.weight", "attn_v.weight", "attn_kv_a_mqa.weight")):
            total += n_rows
        elif name.endswith("attn_qkv.weight"):
            total += n_rows - shapes[name.replace("attn_qkv", "attn_output")][1]  # queries are as wide as their output
    return HALF * total


def gguf_bytes(shapes: dict[str, tuple[int, ...]], quant_type: str) -> int:
    """Size of a GGUF file in one of `QUANT_TYPES`; its metadata are estimated.

    Args:
        shapes: names and shapes of its tensors, shapes in PyTorch's order.
    """
    n_layer = 1 + max((_layer(name) for name in shapes), default=0)
    routers = [shape for name, shape in shapes.items() if name.endswith("ffn_gate_inp.weight")]
    n_expert = routers[0][0] if routers else 0
    total = BYTES_OF_METADATA + BYTES_PER_TOKEN * shapes["token_embd.weight"][0]
    for name, shape in shapes.items():
        kind = _tensor_type(name, shape, quant_type, n_layer, n_expert, tied="output.weight" not in shapes)
        n_bytes, n_values = TYPES[kind]
        size = math.prod(shape) // n_values * n_bytes
        description = 24 + len(name) + 8 * len(shape)
        total += description + -(-size // ALIGNMENT) * ALIGNMENT
    return total


def _tensor_type(name: str, shape: tuple[int, ...], quant_type: str, n_layer: int, n_expert: int, tied: bool) -> str:
    """The type a tensor has in a file, by the rules of llama.cpp (src/llama-quant.cpp)."""
    is_kept = "_norm.weight" in name or "ffn_gate_inp" in name or name == "position_embd.weight"
    if len(shape) < 2 or not name.endswith("weight") or is_kept:
        return "F32"
    kind = {"Q4_K_M": "Q4_K"}.get(quant_type, quant_type)
    if kind == "F16":
        return kind
    row = shape[-1]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        kind = "Q8_0" if row % TYPES[kind][1] or kind == "Q8_0" else "Q6_K"
    elif re.search(r"attn_(qkv|kv_b|v)\.weight", name):
        if quant_type == "Q4_K_M" and _has_more_bits(_layer(name), n_layer):
            kind = "Q6_K"
        kind = "Q8_0" if n_expert == 8 else kind
    elif "attn_k.weight" in name:
        kind = "Q8_0" if n_expert == 8 else kind
    elif "ffn_down" in name and quant_type == "Q4_K_M" and _has_more_bits(_layer(name), n_layer):
        kind = "Q6_K"
    elif "attn_output.weight" in name and quant_type == "Q4_K_M" and n_expert == 8:
        kind = "Q5_K"
    if row % TYPES[kind][1]:
        kind = FALLBACKS.get(kind, kind)
    return "F16" if row % TYPES[kind][1] else kind


def _has_more_bits(layer: int, n_layer: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    return layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else 0
