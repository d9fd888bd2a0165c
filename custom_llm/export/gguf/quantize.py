"""Quantization: the types by name, which of them a tensor gets, and the file of a type.

llama.cpp does it, by its program in a checkout or by its library. Where neither is there the `gguf` package does, for
the types of HERE. To add a type: FILE_TYPES, and if blocks of it are new, BLOCKS; tests/export/test_tables.py tells.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.export.gguf.llama_cpp_tools import find_quantizer, run_program
from custom_llm.llamacpp import MISSING, is_available

Shapes = dict[str, tuple[int, ...]]  # of the tensors of a file by name, in PyTorch's order

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
HERE = ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1")
# Bytes of a block of values, and how many values it holds.
BLOCKS = {
    "F32": (4, 1), "F16": (2, 1), "BF16": (2, 1), "Q8_0": (34, 32), "Q4_0": (18, 32), "Q4_1": (20, 32),
    "Q5_0": (22, 32), "Q5_1": (24, 32), "Q4_K": (144, 256), "Q5_K": (176, 256), "Q6_K": (210, 256),
}  # fmt: skip
FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # where rows are no multiple of 256


def parse_quant_types(text: str) -> list[str]:
    """`"q4_0,Q8_0"` as ["Q4_0", "Q8_0"]. Raises UserError for unknown types, and for those of NEED_IMPORTANCE."""
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    for name in names:
        if name in NEED_IMPORTANCE:
            smallest = "Q2_K" if is_available() else "Q4_0"
            reason = "needs an importance matrix, which is not computed here"
            raise UserError(f"--quant_type {name} {reason}; take {smallest}")
        if name not in FILE_TYPES and name not in ALIASES:
            known = ["known are", *FILE_TYPES, *ALIASES] if is_available() else ["without llama.cpp there are", *HERE]
            raise UserError(f"--quant_type {name}: no such type; {known[0]} {', '.join(known[1:])}")
    if not names:
        raise UserError("--quant_type is empty; give one or more types, such as Q8_0 or Q4_0,Q8_0")
    return list(dict.fromkeys(names))


def check_possible(quant_types: Sequence[str], checkout: str | Path | None) -> None:
    """Raise UserError, before the work begins, for a type that takes llama.cpp where it is not installed."""
    if not is_available() and not (checkout and find_quantizer(checkout)):
        for name in quant_types:
            if name not in HERE:
                raise UserError(f"--quant_type {name}: {MISSING}; without it there are {', '.join(HERE)}")


def quantize(source: Path, target: Path, quant_type: str, checkout: str | Path | None) -> None:
    """Write the F32 GGUF `source` to `target` in `quant_type`, with the checkout's llama-quantize if it has one."""
    quant_type = ALIASES.get(quant_type, quant_type)
    if program := checkout and find_quantizer(checkout):
        run_program([str(program), str(source), str(target), quant_type], str(program))
    elif is_available():
        from custom_llm.llamacpp import quantize_file

        quantize_file(source, target, FILE_TYPES[quant_type])
    else:
        _quantize_here(source, target, quant_type)


def _quantize_here(source: Path, target: Path, quant_type: str) -> None:
    """The same without llama.cpp: all it says, and its tensors as `tensor_types` has them.

    Q6_K, in which llama.cpp holds the output layer of most types, is not among HERE; Q8_0 takes its place.
    """
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

    from custom_llm.export.gguf.writer import finish

    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if field.name == "general.file_type":
            writer.add_file_type(FILE_TYPES[quant_type])
        elif not field.name.startswith("GGUF.") and field.name != "general.architecture":
            element = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], element)
    shapes = {tensor.name: tuple(map(int, tensor.shape[::-1])) for tensor in reader.tensors}
    types = tensor_types(shapes, quant_type)
    for tensor in reader.tensors:
        kind = GGMLQuantizationType["Q8_0" if types[tensor.name] == "Q6_K" else types[tensor.name]]
        writer.add_tensor(tensor.name, quants.quantize(tensor.data, kind), raw_dtype=kind)
    finish(writer)


def tensor_types(shapes: Shapes, quant_type: str) -> dict[str, str]:
    """The type each tensor has in a file, by the rules of llama.cpp (src/llama-quant.cpp); of HERE, and Q4_K_M."""
    n_layer = 1 + max((_layer(name) for name in shapes), default=0)
    has_8_experts = any(name.endswith("ffn_gate_inp.weight") and shape[0] == 8 for name, shape in shapes.items())
    output = "output.weight" if "output.weight" in shapes else "token_embd.weight"

    def kind_of(name: str, row: int) -> str:
        kind = {"Q4_K_M": "Q4_K"}.get(quant_type, quant_type)
        if BLOCKS[kind][1] == 1:
            return kind
        # the first and last eighth of the layers, and every third between them
        layer, eighth = _layer(name), n_layer // 8
        has_more_bits = layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2
        if name == output:
            kind = "Q8_0" if row % BLOCKS[kind][1] or kind == "Q8_0" else "Q6_K"
        elif has_8_experts and re.search(r"attn_(qkv|kv_b|v|k)\.weight", name):
            kind = "Q8_0"
        elif quant_type == "Q4_K_M" and has_more_bits and re.search(r"attn_(qkv|kv_b|v)\.weight|ffn_down", name):
            kind = "Q6_K"
        elif quant_type == "Q4_K_M" and has_8_experts and "attn_output.weight" in name:
            kind = "Q5_K"
        if row % BLOCKS[kind][1]:
            kind = FALLBACKS.get(kind, kind)
        return "F16" if row % BLOCKS[kind][1] else kind

    return {name: kind_of(name, shape[-1]) if is_quantized(name, shape) else "F32" for name, shape in shapes.items()}


def is_quantized(name: str, shape: Sequence[int]) -> bool:
    """Whether llama.cpp quantizes a tensor of a GGUF file: matrices, but not the table of positions, nor a router."""
    return (
        len(shape) > 1
        and name.endswith("weight")
        and not name.endswith(("position_embd.weight", "ffn_gate_inp.weight"))
    )


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else 0


def fallback_note(quant_type: str, path: Path, shapes: Shapes) -> str | None:
    """A sentence for a file some of whose matrices cannot be held in the type it is named after.

    A type packs values in blocks of 32 (Q4_0, Q8_0, IQ4_NL, …) or of 256 (Q4_K_M, IQ3_S, TQ1_0, …). For a matrix whose
    rows are no multiple of that, llama.cpp takes another type.
    """
    block = block_size(ALIASES.get(quant_type, quant_type))
    uneven = sorted({shape[-1] for name, shape in shapes.items() if is_quantized(name, shape) and shape[-1] % block})
    if not uneven:
        return None
    from gguf import GGUFReader  # takes a moment for a large vocabulary

    sizes: Counter[str] = Counter()
    for tensor in GGUFReader(path).tensors:
        if is_quantized(tensor.name, tensor.shape):
            sizes[tensor.tensor_type.name] += int(tensor.n_bytes)
    shares = ", ".join(f"{kind} {size / sizes.total():.0%}" for kind, size in sizes.most_common())
    rows = ", ".join(map(str, uneven[:-1])) + " and " * (len(uneven) > 1) + str(uneven[-1])
    who = "llama.cpp stores this model as" if is_available() else "as in llama.cpp, this model is stored as"
    return f"{quant_type} needs rows of a multiple of {block} values, not {rows}; {who} {shares}"


def block_size(quant_type: str) -> int:
    """Values in a block of a type; rows must be multiples of it."""
    if quant_type in BLOCKS:
        return BLOCKS[quant_type][1]
    return 32 if quant_type == "IQ4_NL" else 256
