"""The vocabularies of known models, as llama.cpp's checkout holds them for its own tests: the same ids as its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT
from gguf import GGUFReader
from transformers import AutoTokenizer
from vocabularies import PIECES, SCRIPTS, check_ids, export

from custom_llm.export.proof import Reference, check_bound
from custom_llm.llamacpp import Model
from custom_llm.tokenizer.pre_tokenizers import PRE_TOKENIZERS
from custom_llm.tokenizer.pretrained import load_pretrained

pytestmark = pytest.mark.slow
CHECKOUT = Path(os.environ.get("LLAMA_CPP", ROOT / "llama.cpp"))
CONTROL, USER_DEFINED = 3, 4

# name of its file → the type that cuts alike, and what is said about it
VOCABULARIES = {
    "gpt-2": ("gpt-2", []),
    "mpt": ("gpt-2", []),
    "llama-bpe": ("llama-bpe", []),
    "qwen2": ("qwen2", ["</s> is read as one token, since llama.cpp takes it for a control token"]),
    "qwen35": ("qwen35", ["</s> is read as one token, since llama.cpp takes it for a control token"]),
    "starcoder": ("smollm", []),
    "refact": ("smollm", []),
    "command-r": ("smollm", []),
}


def write_folder(path: Path, pre: str, folder: Path) -> None:
    """A tokenizer's folder from the vocabulary of a GGUF file."""
    reader = GGUFReader(path)
    tokens, types, merges, eos = (
        reader.get_field(f"tokenizer.ggml.{key}").contents()
        for key in ("tokens", "token_type", "merges", "eos_token_id")
    )
    usual = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, **usual, "special": types[i] == CONTROL}
            for i, token in enumerate(tokens)
            if types[i] in (CONTROL, USER_DEFINED)
        ],
        "normalizer": None,
        "pre_tokenizer": json.loads(PRE_TOKENIZERS[pre].build().__getstate__()),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "ignore_merges": PRE_TOKENIZERS[pre].ignore_merges,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": tokens[eos]}), encoding="utf-8")


@pytest.mark.parametrize("name", VOCABULARIES)
def test_ids_of_a_known_vocabulary(name, tmp_path):
    pre, expected_notes = VOCABULARIES[name]
    source = CHECKOUT / "models" / f"ggml-vocab-{name}.gguf"
    if not source.is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    (tmp_path / "tokenizer").mkdir()
    write_folder(source, pre, tmp_path / "tokenizer")
    tokenizer, notes = load_pretrained(str(tmp_path / "tokenizer"))
    assert notes == expected_notes
    model, hf_dir, path = export(tokenizer, tmp_path)
    reference = Reference(model, tokenizer, SCRIPTS)
    check_bound(path, "F32", reference.compare(path))
    text = SCRIPTS + "x ".join(token.content for token in tokenizer.added.values())
    with Model(path) as runtime:
        readers = (tokenizer, AutoTokenizer.from_pretrained(hf_dir), runtime)
        for part in (SCRIPTS * 9, text, *(piece for piece in PIECES if not tokenizer.unknown(piece))):
            check_ids(readers, part)
