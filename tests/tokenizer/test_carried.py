"""Tokenizers that come with a model: the same ids in training, in Hugging Face's exports and in llama.cpp."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from carried_forms import ODD, SENTENCEPIECE, TEMPLATE, like_gemma, like_llama, trained_by_tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pretrained_forms import change, make
from transformers import AutoTokenizer
from vocabularies import MANY, SCRIPTS, TEXTS, export, in_llama_cpp

from custom_llm.common.errors import UserError
from custom_llm.common.gguf import read_header
from custom_llm.data.sources import open_corpus
from custom_llm.data.token_file import open_tokens
from custom_llm.export.read_back import Original
from custom_llm.export.vocabulary import read_vocabulary
from custom_llm.inference.engine import Engine
from custom_llm.llamacpp import Model
from custom_llm.tokenizer.carried import CarriedTokenizer, carried_from_folder, carried_from_gguf
from custom_llm.tokenizer.load import load_tokenizer, recipe_of

N_ROWS = 700  # of the models, more than the tokens of some
ANY_TEXTS = st.lists(st.one_of(TEXTS, st.sampled_from(ODD), st.text("ahn lo", max_size=30)), max_size=6).map("".join)
BYTE_LEVEL = ["gpt-2", "llama-3", "qwen2", "qwen3.5", "smollm", "pythia", "olmo-2"]


@pytest.fixture(scope="module", params=[*SENTENCEPIECE, *BYTE_LEVEL])
def carried(request, tmp_path_factory):
    """The tokenizer of a folder, the folder, and of a model with it the Hugging Face directory and the GGUF file."""
    folder = tmp_path_factory.mktemp("base") / request.param
    form = SENTENCEPIECE.get(request.param)
    base = form(folder) if form else make(request.param, folder)
    tokenizer = carried_from_folder(base, N_ROWS)
    _, hf_dir, gguf = export(tokenizer, tmp_path_factory.mktemp("export"))
    return tokenizer, base, hf_dir, gguf


@pytest.fixture(scope="module")
def from_gguf(carried, tmp_path_factory):
    """That of its GGUF file, and what was made of a model with it."""
    header = read_header(carried[3])
    tokenizer = carried_from_gguf(header.metadata, N_ROWS)
    _, hf_dir, gguf = export(tokenizer, tmp_path_factory.mktemp("again"))
    return tokenizer, hf_dir, gguf


@pytest.fixture(scope="module")
def runtime(carried):
    with Model(carried[3], vocab_only=True) as model:
        yield model


def known(tokenizer, text: str) -> str:
    return text.translate(dict.fromkeys(map(ord, tokenizer.unknown(text))))


@given(ANY_TEXTS)
@settings(max_examples=100, **MANY)
@example(SCRIPTS)
@example("".join(ODD))
def test_llama_cpp_reads_what_training_reads(carried, runtime, text):
    tokenizer = carried[0]
    text = known(tokenizer, text)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert runtime.tokenize(text) == ids.tolist()
    if "▁" not in text:  # which is a space to some of them, everywhere
        assert tokenizer.decode(ids) == text
        assert runtime.spell(ids.tolist()) == text.encode()


@given(ANY_TEXTS)
@settings(max_examples=50, **MANY)
@example(SCRIPTS)
def test_hugging_face_reads_the_same_of_what_came_from_a_gguf_file(from_gguf, text):
    tokenizer, hf_dir, _ = from_gguf
    hf = reader_of(hf_dir)
    text = known(tokenizer, text)
    assert hf(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text).tolist()
    first = hf(text)["input_ids"][: 1 if tokenizer.begin_of_text_id is not None else 0]
    assert first == [i for i in [tokenizer.begin_of_text_id] if i is not None]


READERS: dict[Path, object] = {}


def reader_of(hf_dir: Path):
    if hf_dir not in READERS:
        READERS[hf_dir] = AutoTokenizer.from_pretrained(hf_dir)
    return READERS[hf_dir]


def test_the_files_of_a_folder_are_as_they_were(carried):
    _, base, hf_dir, _ = carried
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (base / name).exists():
            assert (hf_dir / name).read_bytes() == (base / name).read_bytes()
    if (base / "tokenizer.json").exists():
        ids = AutoTokenizer.from_pretrained(base)(SCRIPTS)["input_ids"]
        assert reader_of(hf_dir)(SCRIPTS)["input_ids"] == ids


def test_all_that_a_gguf_file_says_of_its_vocabulary_is_said_again(carried, from_gguf):
    first, again = (read_header(gguf).metadata for gguf in (carried[3], from_gguf[2]))
    keys = {key for key in first if key.startswith("tokenizer.")}
    assert keys == {key for key in again if key.startswith("tokenizer.")}
    assert {key: again[key] for key in keys} == {key: first[key] for key in keys}
    assert read_vocabulary(carried[2]).keys == carried[0].keys == from_gguf[0].keys


def test_it_travels_with_the_model_as_plain_values(carried):
    tokenizer = carried[0]
    again = load_tokenizer(json.loads(json.dumps(tokenizer.to_dict())))
    assert again.to_dict() == tokenizer.to_dict()
    assert again.encode(SCRIPTS).tolist() == tokenizer.encode(SCRIPTS).tolist()
    assert recipe_of(again).key == recipe_of(tokenizer).key


def test_without_llama_cpp_a_file_is_read_back(carried, tmp_path):
    from vocabularies import small_model

    tokenizer, _, _, gguf = carried
    original = Original(small_model(N_ROWS), tokenizer, SCRIPTS)
    assert original.compare(gguf, gguf).n_tokens == N_ROWS
    other = carried_from_gguf({**tokenizer.keys, "tokenizer.ggml.padding_token_id": 7}, N_ROWS)
    with pytest.raises(UserError, match="its vocabulary is not the trained one"):
        Original(small_model(N_ROWS), other, SCRIPTS).compare(gguf, gguf)


def test_a_model_has_more_rows_than_tokens(tmp_path):
    tokenizer = carried_from_folder(make("gpt-2", tmp_path / "base", vocab_size=600), 640)
    assert tokenizer.vocab_size == 640
    assert tokenizer.tokens[-1] == "[PAD639]"
    assert 639 not in tokenizer.encode("[PAD639]")
    with pytest.raises(UserError, match="it has 601 tokens and the model 500 rows"):
        carried_from_folder(tmp_path / "base", 500)


# --- where a text begins and ends -----------------------------------------------------------------------------------


def test_documents_end_at_the_end_of_a_text_and_not_at_that_of_a_turn(tmp_path):
    for form, end in (("qwen2", "<|endoftext|>"), ("llama-3", "<|end_of_text|>")):
        tokenizer = carried_from_folder(make(form, tmp_path / form))
        assert tokenizer.end_of_text == end
        named = tokenizer.keys["tokenizer.ggml.eos_token_id"]
        assert tokenizer.tokens[named] in ("<|im_end|>", "<|eot_id|>")
        with in_llama_cpp(tokenizer, tmp_path) as runtime:
            assert runtime.eos == tokenizer.end_of_text_id
            assert runtime.ends_text(named) and runtime.ends_text(runtime.eos)


@pytest.mark.parametrize("form", ["llama", "tokenizers"])
def test_a_training_sees_the_beginning_of_each_document(form, tmp_path):
    tokenizer = carried_from_folder(SENTENCEPIECE[form](tmp_path / "base"))
    begin, end = tokenizer.begin_of_text_id, tokenizer.end_of_text_id
    (tmp_path / "text.txt").write_text("One fox.\n<|endoftext|>Two foxes.\n", encoding="utf-8")
    tokens = open_tokens(open_corpus(str(tmp_path / "text.txt")), recipe_of(tokenizer), tmp_path / "cache")
    one, two = tokenizer.encode("One fox.\n").tolist(), tokenizer.encode("Two foxes.\n").tolist()
    assert np.asarray(tokens.ids).tolist() == [end, begin, *one, end, begin, *two]


def test_parts_of_a_long_text_get_no_spaces_between_them(tmp_path):
    tokenizer = carried_from_folder(like_llama(tmp_path))
    text = "The fox's tail isn't long,\nthey've said; I'm sure we'll see.\n" * 3000
    whole = tokenizer.encode(text).tolist()
    cut = text.index("they've", len(text) // 2)
    assert [*tokenizer.encode(text[:cut]), *tokenizer.encode(text[cut:], continued=True)] == whole
    assert tokenizer.decode(whole) == text


@pytest.fixture(scope="module")
def with_begin(tmp_path_factory):
    tokenizer = carried_from_folder(like_gemma(tmp_path_factory.mktemp("base")))
    model, _, gguf = export(tokenizer, tmp_path_factory.mktemp("begin"))
    return tokenizer, model, gguf


def test_llama_cpp_gets_the_token_that_begins_a_text(with_begin):
    tokenizer, _, gguf = with_begin
    begin = tokenizer.begin_of_text_id
    with Engine(gguf) as engine:
        assert engine.read("The fox").tokens == [begin, *tokenizer.encode("The fox")]
        assert engine.read("").tokens == [begin]
        assert engine.read("<s>The fox").tokens == [begin, *tokenizer.encode("The fox")]
        scores = list(engine.score(engine.read("The fox").tokens))
        assert [score.token for score in scores] == tokenizer.encode("The fox").tolist()
        assert all(score.logprob is not None for score in scores)


def test_a_beginning_stays_in_front_when_the_window_is_full(with_begin):
    tokenizer, _, gguf = with_begin
    with Engine(gguf) as engine:
        generation = engine.stream(engine.read("The fox's tail " * 40).tokens, 50, ignore_eos=True)
        list(generation)
        assert generation._history[0] == tokenizer.begin_of_text_id
        assert len(generation._history) <= engine.window


def test_pytorch_and_llama_cpp_write_the_same(with_begin, tmp_path):
    from custom_llm.config.sampling import Sampling
    from custom_llm.inference.torch_engine import TorchEngine
    from custom_llm.model.files import SavedConfig, save_trained

    tokenizer, model, _ = with_begin
    saved = SavedConfig(model.config, tokenizer.to_dict(), SCRIPTS)
    save_trained(tmp_path / "trained_model.pth", model.state_dict(), tmp_path / "model_config.pth", saved)
    f32 = Path(str(with_begin[2]))
    with TorchEngine(tmp_path / "trained_model.pth", tmp_path / "model_config.pth") as ours, Engine(f32) as theirs:
        for prompt in ("", "The fox", " two  spaces\n\n"):
            assert ours.read(prompt) == theirs.read(prompt)
            texts = ["".join(e.generate(prompt, 20, Sampling(temp=0, seed=1))) for e in (ours, theirs)]
            assert texts[0] == texts[1]


def test_a_chat_template_comes_along(tmp_path):
    tokenizer = carried_from_folder(trained_by_tokenizers(tmp_path / "base"))
    _, hf_dir, gguf = export(tokenizer, tmp_path)
    assert AutoTokenizer.from_pretrained(hf_dir).chat_template == TEMPLATE
    metadata = read_header(gguf).metadata
    assert metadata["tokenizer.chat_template"] == TEMPLATE
    made = carried_from_gguf(metadata, tokenizer.vocab_size).to_files(64)
    assert json.loads(made["tokenizer_config.json"])["chat_template"] == TEMPLATE


@pytest.mark.slow
def test_llama_cpps_own_converter_writes_the_same_vocabulary(with_begin, tmp_path):
    checkout = Path(__file__).parents[2] / "llama.cpp"
    if not (checkout / "convert_hf_to_gguf.py").exists():
        pytest.skip("there is no checkout of llama.cpp")
    from custom_llm.export.pipeline import convert_to_gguf

    tokenizer, _, gguf = with_begin
    convert_to_gguf(str(gguf.parent / "hf"), str(tmp_path / "m.gguf"), "F16", llama_cpp_path=str(checkout))
    found = read_header(tmp_path / "m.gguf").metadata
    assert {key: found.get(key) for key in tokenizer.keys} == tokenizer.keys


# --- what cannot be carried -----------------------------------------------------------------------------------------


def as_unigram(content: dict) -> None:
    content["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}


REFUSED = {
    "Unigram": (as_unigram, "its vocabulary is Unigram without tokens for bytes, which cannot be carried"),
    "no tokens for bytes": (lambda c: c["model"].update(byte_fallback=False), "BPE without tokens for bytes"),
    "lower case": (lambda c: c.update(normalizer={"type": "Lowercase"}), "what it does to a text .*Lowercase"),
    "another replacement": (
        lambda c: c["normalizer"].update(content="_"), "it replaces more than spaces before it reads a text",
    ),
    "another cut": (
        lambda c: c.update(pre_tokenizer={"type": "Punctuation", "behavior": "Isolated"}),
        "its pre-tokenizer Punctuation is not known to llama.cpp",
    ),
    "a byte missing": (
        lambda c: c["model"]["vocab"].update(qqqq=c["model"]["vocab"].pop("<0x41>")), "1 of the 256 bytes are no token",
    ),
    "a hole": (lambda c: c["model"]["vocab"].update(qqqq=5000), "its ids are not one number for each token"),
    "a merge of nothing": (lambda c: c["model"]["merges"].append(["q", "ééé"]), "a merge is not of two of its tokens"),
    "no model": (lambda c: c.pop("model"), "a vocabulary that is damaged"),
    "no end": (lambda c: [t.update(special=False) for t in c["added_tokens"]], "named as the one that ends a text"),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained_by_tokenizers(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_cannot_be_carried_is_refused_in_a_line(what, plain, tmp_path):
    damage, message = REFUSED[what]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((plain / name).read_bytes())
    change(tmp_path / "tokenizer.json", damage)
    with pytest.raises(UserError, match=message) as refused:
        carried_from_folder(tmp_path, name="some/model")
    assert str(refused.value).startswith("some/model: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer.json": b""},
        {"tokenizer.json": b"\xff"},
        {"tokenizer.json": b"[]"},
        {"tokenizer.model": b"\x0a\xff"},
        {"tokenizer.model": b""},
        {"tokenizer.json": b"{}", "tokenizer_config.json": b"[]"},
        {"vocab.json": b"{}", "merges.txt": b""},
    ],
    ids=str,
)
def test_damaged_files_are_told_in_a_line(files, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        carried_from_folder(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer.ggml.model": "t5"}, "its vocabulary is of the kind 't5', which cannot be read here"),
        ({"tokenizer.ggml.pre": "falcon"}, "its text is cut by 'falcon', which is not known here"),
        ({"tokenizer.ggml.tokens": ["a"]}, "are not of one number"),
        ({"tokenizer.ggml.tokens": 3}, "a vocabulary that is damaged"),
        ({"tokenizer.ggml.tokens": [3]}, "it holds no list of tokens"),
        ({"tokenizer.ggml.merges": 3}, "a vocabulary that is damaged"),
        ({"tokenizer.ggml.model": None}, "its vocabulary is of the kind None"),
    ],
)
def test_a_gguf_file_that_cannot_be_carried_is_refused_in_a_line(changed, message, tmp_path):
    keys = carried_from_folder(make("gpt-2", tmp_path)).keys
    with pytest.raises(UserError, match=message) as refused:
        carried_from_gguf({**keys, **changed}, N_ROWS, "base.gguf")
    assert str(refused.value).startswith("base.gguf: ") and "\n" not in str(refused.value)
    with pytest.raises(UserError, match="it holds no vocabulary"):
        carried_from_gguf({}, N_ROWS)


def test_an_id_that_no_token_has_is_none(tmp_path):
    keys = carried_from_folder(make("gpt-2", tmp_path)).keys
    tokenizer = carried_from_gguf({**keys, "tokenizer.ggml.padding_token_id": 0xFFFFFFFF}, N_ROWS)
    assert "tokenizer.ggml.padding_token_id" not in tokenizer.keys


def test_a_damaged_description_is_no_tokenizer(tmp_path):
    values = carried_from_folder(make("gpt-2", tmp_path)).to_dict()
    for damaged in ({**values, "keys": 3}, {**values, "files": {"a": 3}}, {"kind": "carried"}, {**values, "keys": {}}):
        with pytest.raises(ValueError):
            load_tokenizer(damaged)


# --- real ones ------------------------------------------------------------------------------------------------------

BASES = Path(os.environ.get("CUSTOM_LLM_BASES", "bases"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m-Q4_K_M.gguf"])
def test_real_vocabularies_give_llama_cpps_ids(name):
    if not (BASES / name).exists():
        pytest.skip(f"{name} is not in the folder that CUSTOM_LLM_BASES names")
    header = read_header(BASES / name)
    tokenizer = carried_from_gguf(header.metadata, header.tensors["token_embd.weight"].shape[0])
    assert isinstance(tokenizer, CarriedTokenizer)
    pieces = st.integers(0, tokenizer.vocab_size - 1).map(lambda i: tokenizer.tokens[i].replace("\ufffd", ""))

    with Model(BASES / name, vocab_only=True) as runtime:

        @given(st.lists(st.one_of(ANY_TEXTS, pieces), max_size=8).map("".join))
        @settings(max_examples=5000, **MANY)
        def same(text):
            text = known(tokenizer, text)
            assert runtime.tokenize(text) == tokenizer.encode(text).tolist()

        same()
