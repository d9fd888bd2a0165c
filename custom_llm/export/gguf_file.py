"""Writing a Hugging Face directory as an F32 GGUF file, in this process, with the `gguf` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf import GGUFWriter, LlamaFileType
from safetensors import SafetensorError
from safetensors.torch import load_file

from custom_llm.errors import UserError
from custom_llm.export.gpt2 import ARCHITECTURE, gguf_tensors, padded_context, read_config
from custom_llm.export.vocabulary import GGUFVocabulary, read_vocabulary


def write_gguf(hf_dir: str | Path, path: str | Path, name: str) -> None:
    """Write the model in `hf_dir` to `path` under the title `name`.

    Raises:
        UserError: the directory is not one that `write_hf_directory` wrote.
    """
    config, vocabulary = read_config(hf_dir), read_vocabulary(hf_dir)
    writer = GGUFWriter(str(path), ARCHITECTURE)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_context_length(padded_context(config))
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(LlamaFileType.ALL_F32)
    add_block_size(writer, config)
    add_vocabulary(writer, vocabulary)
    for tensor_name, tensor in gguf_tensors(_read_tensors(hf_dir), config):
        writer.add_tensor(tensor_name, tensor.numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def add_block_size(writer: Any, config: dict[str, Any]) -> None:
    """The window the model was trained on, which our runtime keeps to; the position table is longer (padded)."""
    writer.add_uint32("custom_llm.block_size", config["n_positions"])


def add_vocabulary(writer: Any, vocabulary: GGUFVocabulary) -> None:
    """Everything llama.cpp's tokenizer reads from a file."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.end_of_text_id)
    writer.add_eos_token_id(vocabulary.end_of_text_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _read_tensors(hf_dir: str | Path) -> dict[str, Any]:
    path = Path(hf_dir) / "model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: {error}; export the model anew with convert_to_gguf.py") from None
