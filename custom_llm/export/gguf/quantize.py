"""Quantization by llama.cpp: its types by name, and what they really become in a given file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.export.gguf.llama_cpp_tools import find_quantizer, run_quantizer

# llama.cpp's `enum llama_ftype`, by the names llama-quantize takes.
FILE_TYPES = {
    "F32": 0, "F16": 1, "BF16": 32,
    "Q8_0": 7, "Q6_K": 18,
    "Q5_0": 8, "Q5_1": 9, "Q5_K_S": 16, "Q5_K_M": 17,
    "Q4_0": 2, "Q4_1": 3, "Q4_K_S": 14, "Q4_K_M": 15, "IQ4_NL": 25, "IQ4_XS": 30,
    "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "IQ3_S": 26, "IQ3_M": 27,
    "Q2_K": 10, "TQ1_0": 36, "TQ2_0": 37,
}  # fmt: skip
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
# These choose each weight's value by how much it matters, measured beforehand on text.
NEED_IMPORTANCE = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S")


def parse_quant_types(text: str) -> list[str]:
    """`"q4_0,Q8_0"` as ["Q4_0", "Q8_0"].

    Raises:
        UserError: an unknown type, or one that needs an importance matrix.
    """
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    for name in names:
        if name in NEED_IMPORTANCE:
            raise UserError(f"--quant_type {name} needs an importance matrix, which is not computed here; take Q2_K")
        if name not in FILE_TYPES and name not in ALIASES:
            raise UserError(f"--quant_type {name}: no such type; known are {', '.join([*FILE_TYPES, *ALIASES])}")
    if not names:
        raise UserError("--quant_type is empty; give one or more types, such as Q8_0 or Q4_0,Q8_0")
    return list(dict.fromkeys(names))


def quantize(source: Path, target: Path, quant_type: str, checkout: str | Path | None) -> None:
    """Write the F32 GGUF `source` to `target` in `quant_type`, with the checkout's llama-quantize if it has one.

    Raises:
        UserError: llama.cpp refused.
    """
    quant_type = ALIASES.get(quant_type, quant_type)
    program = checkout and find_quantizer(checkout)
    if program:
        run_quantizer(program, source, target, quant_type)
    else:
        from custom_llm.llamacpp import quantize_file

        quantize_file(source, target, FILE_TYPES[quant_type])


def fallback_note(quant_type: str, path: Path, shapes: dict[str, tuple[int, ...]]) -> str | None:
    """A sentence for a file some of whose matrices cannot be held in the type it is named after.

    A type packs values in blocks of 32 (Q4_0, Q8_0, IQ4_NL, …) or of 256 (Q4_K_M, IQ3_S, TQ1_0, …). For a matrix whose
    rows are no multiple of that, llama.cpp takes another type.

    Args:
        shapes: of the file's tensors by name, in PyTorch's order.
    """
    block = _block(ALIASES.get(quant_type, quant_type))
    uneven = sorted({shape[-1] for name, shape in shapes.items() if _is_quantized(name, shape) and shape[-1] % block})
    if not uneven:
        return None
    from gguf import GGUFReader  # takes a moment for a large vocabulary

    sizes: Counter[str] = Counter()
    for tensor in GGUFReader(path).tensors:
        if _is_quantized(tensor.name, tensor.shape):
            sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    shares = ", ".join(f"{kind} {size / sizes.total():.0%}" for kind, size in sizes.most_common())
    rows = ", ".join(map(str, uneven[:-1])) + " and " * (len(uneven) > 1) + str(uneven[-1])
    return (
        f"{quant_type} needs rows of a multiple of {block} values, not {rows}; llama.cpp stores this model as {shares}"
    )


def _block(quant_type: str) -> int:
    """Values in a block of a type; rows must be multiples of it."""
    if quant_type in ("F32", "F16", "BF16"):
        return 1
    big = "_K" in quant_type or quant_type.startswith(("IQ", "TQ"))
    return 256 if big and quant_type != "IQ4_NL" else 32


def _is_quantized(name: str, shape: Sequence[int]) -> bool:
    """Whether llama.cpp quantizes a tensor of a GGUF file: matrices, but not the table of positions, nor a router."""
    return len(shape) > 1 and not name.endswith(("position_embd.weight", "ffn_gate_inp.weight"))
