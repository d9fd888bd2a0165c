"""How large a GGUF file and its cache will be, from the names and shapes of its tensors."""

from __future__ import annotations

import math

from custom_llm.export.gguf.quantize import BLOCKS, Shapes, tensor_types
from custom_llm.model.costs import HALF

QUANT_TYPES = ("F16", "Q8_0", "Q4_K_M", "Q4_0")  # of which a plan names the sizes
ALIGNMENT = 32  # tensors begin at multiples of it
# As a token, a character beyond ASCII has some bytes, a length, a type, and a rule that merges its bytes.
BYTES_PER_TOKEN = 31
BYTES_OF_METADATA = 750


def gguf_cache_bytes(shapes: Shapes) -> int:
    """Bytes that llama.cpp keeps of each token for a GGUF file, whose heads may be padded to those of wider layers.

    With flash attention, its default; without it, the values of every layer are as wide as those of the widest.
    """
    total = 0
    for name, (n_rows, *_) in shapes.items():
        if name.endswith(("attn_k.weight", "attn_v.weight", "attn_kv_a_mqa.weight")):
            total += n_rows
        elif name.endswith("attn_qkv.weight"):
            total += n_rows - shapes[name.replace("attn_qkv", "attn_output")][1]  # queries are as wide as their output
    return HALF * total


def gguf_bytes(shapes: Shapes, quant_type: str) -> int:
    """Size of a GGUF file in one of `QUANT_TYPES`; its metadata are estimated."""
    total = BYTES_OF_METADATA + BYTES_PER_TOKEN * shapes["token_embd.weight"][0]
    for name, kind in tensor_types(shapes, quant_type).items():
        n_bytes, n_values = BLOCKS[kind]
        size = math.prod(shapes[name]) // n_values * n_bytes
        description = 24 + len(name) + 8 * len(shapes[name])
        total += description + -(-size // ALIGNMENT) * ALIGNMENT
    return total
