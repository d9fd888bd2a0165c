"""Writing a graph as an F32 GGUF file, in this process, with the `gguf` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType, size_label

from custom_llm.common import seal
from custom_llm.export.about import About
from custom_llm.export.gguf.architectures import Architecture
from custom_llm.export.graph.graph import Graph
from custom_llm.export.vocabulary import GGUFVocabulary


def write_gguf(
    graph: Graph,
    architecture: Architecture,
    vocabulary: GGUFVocabulary,
    path: str | Path,
    name: str,
    about: About = About(),  # noqa: B008 (frozen)
) -> None:
    """Write to `path`, under the title `name`, a graph that `architecture` has prepared."""
    writer = GGUFWriter(str(path), architecture.name)
    writer.add_type("model")
    writer.add_name(name)
    for key, value in architecture.all_metadata(graph.s):
        _add(writer, key, value)
    writer.add_file_type(LlamaFileType.ALL_F32)
    add_block_size(writer, graph.s.block_size)
    add_about(writer, about)
    add_vocabulary(writer, vocabulary)
    for tensor_name, tensor in architecture.tensors(graph).items():
        writer.add_tensor(tensor_name, tensor.numpy())
    # As llama.cpp's converter has it.
    writer.add_size_label(size_label(*writer.get_total_parameter_count()))
    writer.add_quantization_version(GGML_QUANT_VERSION)
    finish(writer)


def finish(writer: GGUFWriter) -> None:
    """Write the file that was described."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def add_block_size(writer: Any, block_size: int) -> None:
    """The window the model was trained on, which our runtime keeps to; a table of positions is longer (padded).

    And room for the seal of the finished file (`common.seal`).
    """
    writer.add_uint32("custom_llm.block_size", block_size)
    writer.add_string(seal.KEY, seal.EMPTY)


def add_about(writer: Any, about: About) -> None:
    """What the file says about the model in words, but for its name."""
    for key, value in about.to_gguf().items():
        _add(writer, key, value)


def add_vocabulary(writer: Any, vocabulary: GGUFVocabulary) -> None:
    """Everything llama.cpp's tokenizer reads from a file."""
    for key, value in vocabulary.keys.items():
        _add(writer, key, value)


def _add(writer: Any, key: str, value: Any) -> None:
    """A key with the type that llama.cpp reads such a value in."""
    one = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    one.get(type(value), writer.add_array)(key, value)
