"""Small GGUF files with random weights and a character vocabulary, as convert_to_gguf.py lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

END_OF_TEXT = "<|endoftext|>"
ROWS = 256  # llama.cpp rounds contexts up to this many positions, and so are tables of positions


def write_gpt2(
    path: Path,
    characters: str,
    *,
    block_size: int = 64,
    n_layer: int = 2,
    n_head: int = 2,
    n_embd: int = 32,
    seed: int = 0,
    scale: float = 0.5,
    end_bias: float = -50.0,
    texts: Mapping[str, str] | None = None,
    controls: Sequence[str] = (),
    byte_tokens: bool = False,
) -> Path:
    """Write a gpt2-architecture model over the distinct `characters` plus <|endoftext|>, and return `path`.

    scale: standard deviation of the weights. end_bias: roughly, the logit of <|endoftext|> (very low: never
    generated). texts: of its metadata, by key. controls: more control tokens. byte_tokens: also a token for each byte.
    """
    generator = np.random.default_rng(seed)
    rows = -(-block_size // ROWS) * ROWS

    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(rows)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(4 * n_embd)
    writer.add_head_count(n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_uint32("custom_llm.block_size", block_size)
    for key, text in (texts or {}).items():
        writer.add_string(key, text)
    n_vocab = _add_vocabulary(writer, sorted(set(characters)), controls, byte_tokens)

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        writer.add_tensor(name, generator.normal(mean, scale, shape).astype(np.float32))

    add("token_embd.weight", n_vocab, n_embd)
    add("position_embd.weight", rows, n_embd)
    for layer in range(n_layer):
        for name, n_out, n_in in (
            ("attn_qkv", 3 * n_embd, n_embd),
            ("attn_output", n_embd, n_embd),
            ("ffn_up", 4 * n_embd, n_embd),
            ("ffn_down", n_embd, 4 * n_embd),
        ):
            writer.add_tensor(
                f"blk.{layer}.{name}.weight",
                generator.normal(0, scale / n_in**0.5, (n_out, n_in)).astype(np.float32),
            )
            add(f"blk.{layer}.{name}.bias", n_out)
        for norm in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{norm}.weight", n_embd, mean=1.0)
            add(f"blk.{layer}.{norm}.bias", n_embd)
    # The first channel is constant after the last norm, so that the output row of <|endoftext|> can use it.
    norm_weight, norm_bias = np.ones(n_embd, np.float32), np.zeros(n_embd, np.float32)
    norm_weight[0], norm_bias[0] = 0.0, 1.0
    writer.add_tensor("output_norm.weight", norm_weight)
    writer.add_tensor("output_norm.bias", norm_bias)
    output = generator.normal(0, scale, (n_vocab, n_embd)).astype(np.float32)
    output[-1] = 0.0
    output[-1, 0] = end_bias
    writer.add_tensor("output.weight", output)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: gguf.GGUFWriter, characters: list[str], controls: Sequence[str], byte_tokens: bool) -> int:
    """Byte-level BPE that amounts to one token a character: merges join the bytes of each. Returns its size."""
    alphabet = _byte_alphabet()
    tokens = ["".join(alphabet[byte] for byte in character.encode()) for character in characters]
    # llama.cpp refuses an empty list; the bytes 0xFE 0xFF occur in no UTF-8 text.
    merges = {f"{alphabet[0xFE]} {alphabet[0xFF]}": None}
    for token in tokens:
        for end in range(1, len(token)):
            merges[f"{token[:end]} {token[end]}"] = None
    tokens += [letter for letter in alphabet if byte_tokens and letter not in tokens]
    types = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL] * (len(controls) + 1)
    tokens += controls
    end_id = len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, END_OF_TEXT])
    writer.add_token_types(types)
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(end_id)
    writer.add_eos_token_id(end_id)
    writer.add_add_bos_token(False)
    return len(types)


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte (Radford et al. 2019, encoder.py)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]
