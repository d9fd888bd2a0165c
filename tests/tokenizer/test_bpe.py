"""Byte-level BPE: the same ids in our tokenizer, in transformers and in llama.cpp, for whatever is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, ROOT, run_script
from gguf import GGUFReader
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from vocabularies import MANY, PIECES, SCRIPTS, TEXTS, boundary_merges, check_boundaries, check_ids, export, small_model

from custom_llm.common.errors import UserError
from custom_llm.common.text import as_read
from custom_llm.config.sampling import Sampling
from custom_llm.export.huggingface.directory import write_hf_directory
from custom_llm.export.pipeline import convert_to_gguf
from custom_llm.export.proof import Reference, check_bound
from custom_llm.export.vocabulary import read_vocabulary
from custom_llm.inference.engine import Engine
from custom_llm.llamacpp import Model
from custom_llm.llamacpp.context import Context
from custom_llm.model.files import SavedConfig, load_trained, save_config, save_weights
from custom_llm.tokenizer import bpe
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.bpe import BYTE_LETTERS, BPETokenizer
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.load import load_tokenizer


@pytest.fixture(scope="module")
def trained() -> BPETokenizer:
    return BPETokenizer.train([SCRIPTS * 3, *PIECES * 2], 700)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return export(trained, tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def readers(trained, exported):
    """What reads text by one vocabulary: our tokenizer, transformers' and llama.cpp's."""
    _, hf_dir, path = exported
    with Model(path) as runtime:
        yield trained, AutoTokenizer.from_pretrained(hf_dir), runtime


# --- ids ------------------------------------------------------------------------------------------------------------


@given(TEXTS)
@example("")
@example(SCRIPTS)
@settings(max_examples=1000, **MANY)
def test_token_ids_are_the_same_everywhere(readers, text):
    check_ids(readers, text)


@pytest.mark.slow
@given(TEXTS)
@settings(max_examples=20_000, **MANY)
def test_token_ids_are_the_same_everywhere_in_many_texts(readers, text):
    check_ids(readers, text)


@pytest.fixture(scope="module")
def boundaries(tmp_path_factory):
    pairs = boundary_merges()
    tokens = dict.fromkeys((END_OF_TEXT, *BYTE_LETTERS, *map("".join, pairs)))
    tokenizer = BPETokenizer(list(tokens), pairs)
    _, _, path = export(tokenizer, tmp_path_factory.mktemp("boundaries"))
    with Model(path) as runtime:
        yield tokenizer, runtime


def test_llama_cpp_cuts_around_a_character_as_we_do(boundaries):
    new_in_unicode_16 = (*range(0x1C80, 0x1C90), *range(0xA7C8, 0xA7E0), *range(0x11380, 0x113E0), 0x143FA, 0x1E5FA)
    check_boundaries(boundaries, (*range(0x3100), *range(0xE000, 0x110000, 99), *new_in_unicode_16))


@pytest.mark.slow
def test_llama_cpp_cuts_around_every_character_as_we_do(boundaries):
    check_boundaries(boundaries, (*range(0xD800), *range(0xE000, 0x110000)))


@given(TEXTS, st.integers(1, 9))
@settings(max_examples=200, **MANY)
def test_a_long_text_is_encoded_in_parts(trained, text, size):
    ids = trained.encode(text).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "CHUNK", size)
        assert trained.encode(text).tolist() == ids


def test_whatever_follows_a_line_break_may_begin_a_part(trained, monkeypatch):
    for line in ("b\n\n{}", "b \n{}"):
        text = "".join(line.format(chr(point)) for point in (*range(0x3100), *range(0xE000, 0x110000, 499)))
        monkeypatch.setattr(bpe, "CHUNK", len(text))
        ids = trained.encode(text).tolist()
        monkeypatch.setattr(bpe, "CHUNK", 1)
        assert trained.encode(text).tolist() == ids


@given(st.data())
@settings(max_examples=200, **MANY)
def test_ids_in_the_middle_of_a_character_give_replacement_characters(trained, data):
    ids = data.draw(st.lists(st.integers(0, trained.vocab_size - 1)))
    joined = b"".join(trained.bytes[i] for i in ids)
    assert trained.decode(ids) == joined.decode("utf-8", "replace")
    assert trained.decode(iter(np.array(ids, dtype=np.int32))) == trained.decode(ids)


# --- vocabularies ---------------------------------------------------------------------------------------------------


def test_training_joins_what_is_frequent():
    tokenizer = BPETokenizer.train(["newer lower wider"] * 9, 259)
    assert [tokenizer.tokens[i] for i in tokenizer.encode(f"lower{END_OF_TEXT}")] == ["l", "o", "wer", END_OF_TEXT]
    assert BPETokenizer.train(["newer lower wider"] * 9, 259).to_dict() == tokenizer.to_dict()


def test_training_stands_a_text_without_spaces():
    tokenizer = BPETokenizer.train(["x" * 1_000_000 + "\n" * 100_000 + "中文字" * 100_000], 300)
    assert tokenizer.vocab_size > 257


def test_no_token_reaches_across_documents(trained):
    tokenizer = BPETokenizer.train([f"a<|{END_OF_TEXT}|>a" * 50], 300)
    assert [token for token in tokenizer.tokens if "end" in token or "of" in token] == [END_OF_TEXT]


@pytest.mark.parametrize("vocab_size", [257, 258, 270])
@pytest.mark.parametrize("texts", [[], ["", "x"], [SCRIPTS]])
def test_small_vocabularies(tmp_path, vocab_size, texts):
    tokenizer = BPETokenizer.train(texts, vocab_size)
    assert tokenizer.vocab_size == (vocab_size if texts == [SCRIPTS] else 257)
    _, hf_dir, path = export(tokenizer, tmp_path)
    with Model(path) as runtime:
        for text in (SCRIPTS, *PIECES):
            check_ids((tokenizer, AutoTokenizer.from_pretrained(hf_dir), runtime), text)


@pytest.mark.parametrize("vocab_size", [-1, 0, 256])
def test_a_vocabulary_smaller_than_the_bytes_is_refused(vocab_size):
    with pytest.raises(ValueError, match=f"vocab_size: {vocab_size} is not at least 257, the 256 bytes and"):
        BPETokenizer.train(["text"], vocab_size)


@given(TEXTS)
@settings(max_examples=50, **MANY)
def test_a_saved_tokenizer_is_the_same(trained, text):
    again = load_tokenizer(trained.to_dict())
    assert isinstance(again, BPETokenizer)
    assert again.encode(text).tolist() == trained.encode(text).tolist()
    assert again.to_dict() == trained.to_dict()


DAMAGES = {
    "no model": lambda c: c.pop("model"),
    "no vocabulary": lambda c: c["model"].update(vocab=None),
    "a byte missing": lambda c: c["model"]["vocab"].pop("a"),
    "an id twice": lambda c: c["model"]["vocab"].update(a=5),
    "an id that is no number": lambda c: c["model"]["vocab"].update(a="5"),
    "a merge of nothing": lambda c: c["model"]["merges"].append(["qq", "qq"]),
    "a merge of three": lambda c: c["model"]["merges"].append(["a", "b", "c"]),
    "a merge twice": lambda c: c["model"]["merges"].append(c["model"]["merges"][0]),
    "no merges": lambda c: c["model"].update(merges=None),
    "another way of cutting": lambda c: c["pre_tokenizer"].update(pretokenizers=[]),
    "a normalizer": lambda c: c.update(normalizer={"type": "NFC"}),
    "no end of text": lambda c: c.update(added_tokens=[]),
    "another token": lambda c: c["added_tokens"].append({"content": "<s>", "id": 900}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_description_is_refused(trained, tmp_path, damage):
    content = json.loads(trained.to_json())
    damage(content)
    check_refused(json.dumps(content), tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", '{"pre_tokenizer": 1}', '{"model": {'])
def test_what_is_no_description_is_refused(tmp_path, text):
    check_refused(text, tmp_path)


def check_refused(text: str, folder: Path) -> None:
    with pytest.raises(ValueError):
        load_tokenizer({"kind": "bpe", "json": text})
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer\.json: .*; export the model anew"):
        read_vocabulary(folder)


@pytest.mark.parametrize("values", [{"kind": "bpe"}, {"kind": "bpe", "json": 3}, {"kind": "words"}, {"kind": []}, []])
def test_a_description_of_nothing_is_refused(values):
    with pytest.raises(ValueError):
        load_tokenizer(values)


def test_who_wants_characters_does_not_load_the_library():
    code = (
        "import sys, custom_llm.tokenizer.load as t; t.load_tokenizer(t.CharTokenizer('ab').to_dict()); "
        "print('tokenizers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == "False\n"


# --- files ----------------------------------------------------------------------------------------------------------


def test_the_file_is_the_model(trained, exported):
    model, hf_dir, path = exported
    parity = Reference(model, trained, SCRIPTS).compare(path)
    check_bound(path, "F32", parity)
    assert parity.kl <= 1e-6
    stock = AutoModelForCausalLM.from_pretrained(hf_dir)
    ids = torch.from_numpy(trained.encode(SCRIPTS)[:32]).long()[None]
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, model(ids)[0], atol=1e-4, rtol=1e-4)


def test_another_vocabulary_is_noticed(exported):
    model, _, path = exported
    other = BPETokenizer.train([SCRIPTS[::-1] * 3], model.config.vocab_size)
    with pytest.raises(UserError, match="as other token ids than PyTorch"):
        Reference(model, other, SCRIPTS).compare(path)


def test_the_end_of_text_is_the_files(trained, readers):
    _, hf, runtime = readers
    assert hf.eos_token_id == hf.bos_token_id == runtime.eos == trained.end_of_text_id == 0
    assert runtime.ends_text(0) and not runtime.ends_text(1)


def test_a_trained_pair_of_files_loads(trained, tmp_path):
    model = small_model(trained.vocab_size)
    save_config(tmp_path / "c.pth", SavedConfig(model.config, trained.to_dict(), SCRIPTS))
    save_weights(tmp_path / "m.pth", model)
    _, tokenizer, saved = load_trained(tmp_path / "m.pth", tmp_path / "c.pth")
    assert tokenizer.encode(SCRIPTS).tolist() == trained.encode(SCRIPTS).tolist()
    assert saved.sample == SCRIPTS


def test_the_scripts_take_a_vocabulary_of_pieces(trained, tmp_path):
    model = small_model(trained.vocab_size)
    save_config(tmp_path / "model_config.pth", SavedConfig(model.config, trained.to_dict(), SCRIPTS))
    save_weights(tmp_path / "trained_model.pth", model)
    result = run_script("convert_to_gguf.py", "--quant_type", "Q8_0", "--llama_cpp_path", "none", cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert re.search(r"^model\.gguf .* always the same next", result.stdout, re.MULTILINE)
    query = "Straße 日本 🙂 it's"
    said = run_script("inference_gguf.py", "--query", query, "--max_tokens", "20", "--ignore_eos", cwd=tmp_path)
    assert (said.status, said.stdout[: len(query)]) == (0, query), said.stderr
    assert "vocabulary" not in said.stderr


@pytest.mark.slow
def test_llama_cpps_converter_writes_the_same_vocabulary(trained, exported, tmp_path):
    checkout = Path(os.environ.get("LLAMA_CPP", ROOT / "llama.cpp"))
    if not (checkout / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    _, hf_dir, path = exported
    convert_to_gguf(str(hf_dir), str(tmp_path / "model.gguf"), "Q8_0", str(checkout))
    inside, outside = GGUFReader(path), GGUFReader(tmp_path / "model.gguf")
    keys = [key for key in inside.fields if key.startswith("tokenizer.")]
    assert len(keys) >= 8
    for key in keys:
        assert inside.get_field(key).contents() == outside.get_field(key).contents()
    assert inside.get_field("tokenizer.ggml.pre").contents() == "gpt-2"


def test_a_character_vocabulary_is_written_as_before(tmp_path):
    model = small_model(5)
    write_hf_directory(model, CharTokenizer("abé\n"), tmp_path)
    vocabulary = read_vocabulary(tmp_path)
    assert vocabulary.tokens == ["a", "b", "Ã©", "Ċ", END_OF_TEXT]
    assert vocabulary.merges == ["ÿ þ", "Ã ©"]


# --- inference ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(exported):
    with Engine(exported[2]) as engine:
        yield engine


@given(TEXTS)
@settings(max_examples=100, **MANY)
def test_nothing_is_unknown_to_the_engine(engine, text):
    assert engine.read(text)[1:] == (as_read(text), [])
    assert isinstance("".join(engine.generate(text, 3, Sampling(seed=1))), str)


def test_characters_cut_between_tokens_come_out_whole(trained, engine, monkeypatch):
    text = "Straße 日本 🙂 क"
    ids = [trained.spelled_tokens.index(BYTE_LETTERS[byte]) for byte in text.encode()]
    chosen = iter([*ids, *ids])
    monkeypatch.setattr(Context, "sample", lambda *_: next(chosen))
    assert list(engine.generate("a", len(ids))) == list(text)
    assert list(engine.generate("a", len(ids) - 1)) == [*text[:-1], "�"]
