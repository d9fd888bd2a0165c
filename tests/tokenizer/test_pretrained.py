"""Tokenizers of other models: read from a folder, the same ids everywhere, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT
from gguf import GGUFReader
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pretrained_forms import (
    FORMS,
    NOTES,
    PRE,
    change,
    make,
    split_at,
)
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast
from vocabularies import (
    MANY,
    PIECES,
    SCRIPTS,
    TEXTS,
    boundary_merges,
    check_boundaries,
    check_ids,
    export,
)

from custom_llm.common import hub
from custom_llm.common.errors import UserError
from custom_llm.export.pipeline import convert_to_gguf
from custom_llm.export.proof import Reference, check_bound
from custom_llm.export.vocabulary import read_vocabulary
from custom_llm.llamacpp import Model
from custom_llm.tokenizer import bpe
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.bpe import BYTE_LETTERS, PretrainedTokenizer
from custom_llm.tokenizer.cut import split
from custom_llm.tokenizer.load import load_tokenizer
from custom_llm.tokenizer.pre_tokenizers import PRE_TOKENIZERS
from custom_llm.tokenizer.pretrained import load_pretrained

OTHERS = "; take char, bpe, or a byte-level BPE such as gpt2, Llama 3's or Qwen2's"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {form: make(form, tmp_path_factory.mktemp(form)) for form in FORMS}


@pytest.fixture(scope="module")
def exported(folders, tmp_path_factory):
    """form → our tokenizer, a model over it, its Hugging Face directory, and its file."""
    found = {}
    for form, folder in folders.items():
        tokenizer, _ = load_pretrained(str(folder))
        found[form] = (tokenizer, *export(tokenizer, tmp_path_factory.mktemp("exported")))
    return found


@pytest.fixture(scope="module", params=FORMS)
def readers(request, exported):
    """What reads text by one vocabulary: our tokenizer, transformers' and llama.cpp's."""
    tokenizer, _, hf_dir, path = exported[request.param]
    with Model(path) as runtime:
        yield tokenizer, AutoTokenizer.from_pretrained(hf_dir), runtime


# --- ids --------------------------------------------------------------------------------------------------------------

ALL_ADDED = sorted({token for form in FORMS.values() for token in (*form[1], *form[2])})
WITH_ADDED = st.lists(st.one_of(TEXTS, st.sampled_from([*ALL_ADDED, "'S", "'ſ", "'LL", "don'T", "K", "\n", "  1"])))
WITH_ADDED = WITH_ADDED.map("".join)


@given(WITH_ADDED)
@example("")
@example(SCRIPTS + "".join(PIECES) + "".join(ALL_ADDED))
@settings(max_examples=250, **MANY)
def test_token_ids_are_the_same_everywhere(readers, text):
    check_ids(readers, text)


@pytest.mark.slow
@given(WITH_ADDED)
@settings(max_examples=10_000, **MANY)
def test_token_ids_are_the_same_everywhere_in_many_texts(readers, text):
    check_ids(readers, text)


@pytest.mark.parametrize("form", FORMS)
def test_both_ways_to_load_the_exported_folder_give_the_same_ids(exported, form):
    tokenizer, _, hf_dir, _ = exported[form]
    for load in (AutoTokenizer, PreTrainedTokenizerFast):
        hf = load.from_pretrained(hf_dir)
        assert hf(SCRIPTS)["input_ids"] == tokenizer.encode(SCRIPTS).tolist()
        assert hf.eos_token == tokenizer.end_of_text and hf.eos_token_id == tokenizer.end_of_text_id
        assert len(hf) == tokenizer.vocab_size


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_those_of_the_model(folders, exported, form):
    """In what was made by the model's own rules, where those and llama.cpp's are the same."""
    text = "The fox's tail isn't long; they'LL see 12345 of them.\n\n  Größe, 日本語のお話。春眠不觉晓 🙂\t Жили-были x"
    own = Tokenizer.from_file(str(folders[form] / "tokenizer.json"))
    assert exported[form][0].encode(text).tolist() == own.encode(text, add_special_tokens=False).ids


def boundary_tokenizer(pre) -> PretrainedTokenizer:
    pairs = boundary_merges()
    tokens = dict.fromkeys((END_OF_TEXT, *BYTE_LETTERS, *map("".join, pairs)))
    return PretrainedTokenizer(list(tokens), pairs, pre=pre)


@pytest.fixture(scope="module", params=[name for name in PRE_TOKENIZERS if name != "gpt-2"])  # that is in test_bpe.py
def boundaries(request, tmp_path_factory):
    tokenizer = boundary_tokenizer(PRE_TOKENIZERS[request.param])
    _, _, path = export(tokenizer, tmp_path_factory.mktemp("boundaries"))
    with Model(path) as runtime:
        yield tokenizer, runtime


def test_llama_cpp_cuts_around_a_character_as_we_do(boundaries):
    new_in_unicode_16 = (*range(0x1C80, 0x1C90), *range(0xA7C8, 0xA7E0), *range(0x11380, 0x113E0), 0x143FA, 0x1E5FA)
    check_boundaries(boundaries, (*range(0x600), *range(0x1F00, 0x2200), 0x3000, *new_in_unicode_16))


@pytest.mark.slow
def test_llama_cpp_cuts_around_every_character_as_we_do(boundaries):
    check_boundaries(boundaries, (*range(0xD800), *range(0xE000, 0x110000)))


@given(WITH_ADDED, st.integers(1, 9))
@settings(max_examples=100, **MANY)
def test_a_long_text_is_encoded_in_parts(readers, text, size):
    tokenizer, _, runtime = readers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "CHUNK", size)
        assert tokenizer.encode(text).tolist() == runtime.tokenize(text)


def test_whatever_follows_a_line_break_or_space_may_begin_a_part(boundaries):
    tokenizer, _ = boundaries
    for line in ("b{0}{0}\n{0}b {0}", f"{END_OF_TEXT.replace('|', '¦')}{{0}}"):
        text = "".join(line.format(chr(point)) for point in (*range(0x800), *range(0x2000, 0x2100)))
        whole = tokenizer._hf.encode(text).ids
        assert [i for part in split(text, 1) for i in tokenizer._hf.encode(part).ids] == whole


@pytest.mark.parametrize("behind", ["x", "1", "!", "...", "é", "中", "\n", " ", "_", "🙂", "½"])
def test_a_text_is_not_cut_behind_an_end_of_text_that_is_no_token(exported, behind, monkeypatch):
    tokenizer = exported["llama-3"][0]
    text = f"a{END_OF_TEXT}{behind}b" * 9
    whole = tokenizer.encode(text).tolist()
    monkeypatch.setattr(bpe, "CHUNK", 1)
    assert tokenizer.encode(text).tolist() == whole


def test_half_a_pair_is_left_out(exported):
    for tokenizer, *_ in exported.values():
        assert tokenizer.encode("a\ud800b\udfff").tolist() == tokenizer.encode("ab").tolist()
        assert tokenizer.unknown("a\ud800b\udfff\ud800é") == ["\ud800", "\udfff"]
        assert tokenizer.unknown(SCRIPTS) == []


# --- what is loaded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_what_is_left_out_is_said(folders, form):
    tokenizer, notes = load_pretrained(str(folders[form]))
    assert tokenizer.kind == "pretrained"
    assert tokenizer.pre.name == PRE.get(form, "dbrx")
    assert notes == NOTES.get(form, [])


@pytest.mark.parametrize("form", FORMS)
def test_the_end_of_text_is_the_one_of_documents(exported, form):
    tokenizer, _, hf_dir, path = exported[form]
    assert tokenizer.end_of_text == ("<|end_of_text|>" if form == "llama-3" else END_OF_TEXT)
    assert tokenizer.encode(tokenizer.end_of_text).tolist() == [tokenizer.end_of_text_id]
    with Model(path) as runtime:
        assert runtime.eos == tokenizer.end_of_text_id
        assert runtime.ends_text(tokenizer.end_of_text_id)
    vocabulary = read_vocabulary(hf_dir)
    assert vocabulary.keys["tokenizer.ggml.eos_token_id"] == tokenizer.end_of_text_id
    types = {vocabulary.tokens[i]: type_ for i, type_ in enumerate(vocabulary.types) if type_ != 1}
    assert types == {**dict.fromkeys(FORMS[form][1], 3), **dict.fromkeys(FORMS[form][2], 4)}


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_tokenizer_is_the_same(exported, form):
    tokenizer = exported[form][0]
    again = load_tokenizer(json.loads(json.dumps(tokenizer.to_dict())))
    assert isinstance(again, PretrainedTokenizer)
    assert again.to_dict() == tokenizer.to_dict()
    text = SCRIPTS + "".join(ALL_ADDED)
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert (again.end_of_text, again.end_of_text_id) == (tokenizer.end_of_text, tokenizer.end_of_text_id)


@pytest.mark.parametrize("bare", [False, True])
def test_a_folder_of_vocab_json_and_merges_txt(folders, tmp_path, bare):
    content = json.loads((folders["gpt-2"] / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = {**content["model"]["vocab"], END_OF_TEXT: content["added_tokens"][0]["id"]}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in content["model"]["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not bare:
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    tokenizer, notes = load_pretrained(str(tmp_path))
    assert notes == []
    assert tokenizer.to_dict() == load_pretrained(str(folders["gpt-2"]))[0].to_dict()


def test_our_own_exported_folder_can_be_taken_again(exported):
    for tokenizer, _, hf_dir, _ in exported.values():
        again, notes = load_pretrained(str(hf_dir))
        assert (again.to_dict(), notes) == (tokenizer.to_dict(), [])


def test_the_file_counts_and_not_the_class_that_transformers_takes(folders):
    """SmolLM's files name GPT2Tokenizer, which does not cut digits off."""
    assert AutoTokenizer.from_pretrained(folders["smollm"]).__class__ is GPT2Tokenizer
    tokenizer, _ = load_pretrained(str(folders["smollm"]))
    assert [tokenizer.tokens[i] for i in tokenizer.encode(" 12345")] == [" ", "1", "2", "3", "4", "5"]


def test_a_space_before_the_text_is_left_out(folders, tmp_path):
    folder = copy(folders["gpt-2"], tmp_path)
    change(folder / "tokenizer.json", lambda c: c["pre_tokenizer"].update(add_prefix_space=True))
    tokenizer, notes = load_pretrained(str(folder))
    assert notes == ["no space is put before a text, where the tokenizer would put one"]
    assert tokenizer.decode(tokenizer.encode("The fox")) == "The fox"


def test_text_that_llama_cpp_takes_for_a_token_is_one(folders, tmp_path):
    """Qwen2's own vocabulary has such a token, that its rules never make."""
    (tmp_path / "a").mkdir()
    folder = copy(folders["qwen2"], tmp_path / "a")
    change(folder / "tokenizer.json", lambda c: add_ordinary(c, "</s>"))
    tokenizer, notes = load_pretrained(str(folder))
    assert notes[1:] == ["</s> is read as one token, since llama.cpp takes it for a control token"]
    text = "<s>strike</s> through</s>\n</ s>"
    assert tokenizer.encode(text).tolist().count(tokenizer.spelled_tokens.index("</s>")) == 2
    _, hf_dir, path = export(tokenizer, tmp_path)
    with Model(path) as runtime:
        check_ids((tokenizer, AutoTokenizer.from_pretrained(hf_dir), runtime), text + SCRIPTS)


def test_a_vocabulary_may_lack_bytes_and_hold_what_is_no_text(folders, tmp_path):
    """StarCoder's lacks bytes that its text did not hold, and Command R's has emoji that are not spelled in bytes."""
    (tmp_path / "a").mkdir()
    folder = copy(folders["smollm"], tmp_path / "a")
    lacking = [BYTE_LETTERS[byte] for byte in (0xC0, 0xF1, 0xFF)]

    def lack(content: dict) -> None:
        for i, letter in enumerate(lacking):
            content["model"]["vocab"][f"{i}\u203c"] = content["model"]["vocab"].pop(letter)

    change(folder / "tokenizer.json", lack)
    tokenizer, _ = load_pretrained(str(folder))
    assert tokenizer.unknown("a\U00040000\U0007ffff\U0010ffff🙂") == ["\U00040000", "\U0007ffff"]
    assert tokenizer.encode("a\U00040000b").tolist() == tokenizer.encode("ab").tolist()
    _, hf_dir, path = export(tokenizer, tmp_path)
    assert read_vocabulary(hf_dir).types.count(5) == 3
    with Model(path) as runtime:
        check_ids((tokenizer, AutoTokenizer.from_pretrained(hf_dir), runtime), "0\u203c1\u203c\u203c" + SCRIPTS)


def test_nothing_is_printed(folders, capfd):
    for folder in folders.values():
        load_pretrained(str(folder))
    assert capfd.readouterr() == ("", "")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["gpt-2", "qwen2", pytest.param("llama-3", marks=pytest.mark.slow)])
def test_the_file_is_the_model_whoever_converts_it(exported, form, tmp_path):
    tokenizer, model, hf_dir, path = exported[form]
    reference = Reference(model, tokenizer, SCRIPTS)
    check_bound(path, "F32", reference.compare(path))
    checkout = Path(os.environ.get("LLAMA_CPP", ROOT / "llama.cpp"))
    if not (checkout / "convert_hf_to_gguf.py").is_file():
        pytest.skip("no llama.cpp checkout here; `make test` brings one")
    other = tmp_path / "model.gguf"
    convert_to_gguf(str(hf_dir), str(other), "Q8_0", str(checkout))
    check_bound(other, "F32", reference.compare(other))
    inside, outside = GGUFReader(path), GGUFReader(other)
    keys = [key for key in inside.fields if key.startswith("tokenizer.")]
    assert len(keys) >= 8
    for key in keys:
        assert inside.get_field(key).contents() == outside.get_field(key).contents()
    assert inside.get_field("tokenizer.ggml.pre").contents() == PRE[form]


# --- what is refused --------------------------------------------------------------------------------------------------


def copy(folder: Path, target: Path) -> Path:
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def add(content: dict, text: str, **flags) -> None:
    last = max(content["model"]["vocab"].values(), default=0), *(token["id"] for token in content["added_tokens"])
    usual = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    content["added_tokens"].append({"id": max(last) + 1, "content": text, **usual, **flags})


def add_ordinary(content: dict, text: str) -> None:
    content["model"]["vocab"][text] = len(content["model"]["vocab"])
    for token in content["added_tokens"]:
        token["id"] += 1


REFUSALS = {
    "another model": (
        lambda c: c.update(model={"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}),
        "its model is Unigram, not a byte-level BPE",
    ),
    "words": (
        lambda c: c.update(model={"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}),
        "its model is WordLevel, not a byte-level BPE",
    ),
    "SentencePiece's": (
        lambda c: c["model"].update(byte_fallback=True),
        "its model is BPE with byte_fallback, not a byte-level BPE",
    ),
    "another way of cutting": (
        lambda c: c.update(pre_tokenizer=split_at(r"\S+|\s+")),
        "no pre-tokenizer of llama.cpp is known to cut text as its does",
    ),
    "no way of cutting": (
        lambda c: c.update(pre_tokenizer=None),
        "no pre-tokenizer of llama.cpp is known to cut text as its does",
    ),
    "merges ignored": (
        lambda c: c["model"].update(ignore_merges=True),
        "llama.cpp's gpt-2 has ignore_merges False, it True",
    ),
    "a byte missing": (
        lambda c: c["model"]["vocab"].update({"qqqq": c["model"]["vocab"].pop(BYTE_LETTERS[9])}),
        "1 of the 256 bytes are no tokens, 0x09 the first",
    ),
    "a hole": (
        lambda c: c["model"]["vocab"].update(qqqq=5000),
        "its ids have holes: 5001 rows, but no token 601",
    ),
    "spaces eaten": (
        lambda c: add(c, "<mask>", lstrip=True),
        "its added token '<mask>' has lstrip, which llama.cpp does not know",
    ),
    "only whole words": (
        lambda c: add(c, "fox", single_word=True),
        "its added token 'fox' has single_word, which llama.cpp does not know",
    ),
    "white space inside": (
        lambda c: add(c, "<a b>"),
        "its added token '<a b>' has white space inside, where long texts are cut",
    ),
    "an end of text inside": (
        lambda c: add(c, "|>b"),
        "its added token '|>b' has white space inside, where long texts are cut",
    ),
    "overlaps": (
        lambda c: (add(c, "<<ab"), add(c, "abcdef")),
        "its added tokens '<<ab' and 'abcdef' overlap; llama.cpp reads '<<abcdef' otherwise",
    ),
    "a token of bytes": (lambda c: add(c, "Ġé"), "its added token 'Ġé' is also the spelling of bytes"),
}


@pytest.mark.parametrize("damage, message", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_llama_cpp_would_read_otherwise_is_refused(folders, tmp_path, damage, message):
    folder = copy(folders["gpt-2"], tmp_path)
    change(folder / "tokenizer.json", damage)
    check_refused(folder, f"{message}{OTHERS}")


def check_refused(name, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_pretrained(str(name))
    assert str(caught.value) == f"--tokenizer {name}: {message}"
    assert "\n" not in message


def test_a_tokenizer_without_an_end_of_text_is_refused(folders, tmp_path):
    folder = copy(folders["llama-3"], tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / file).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace("<|end_of_text|>", "<|other|>"), encoding="utf-8")
    assert load_pretrained(str(folder))[0].end_of_text == "<|eot_id|>"
    change(folder / "tokenizer_config.json", lambda config: config.pop("eos_token"))
    check_refused(folder, f"none of its special tokens is named as the one that ends a text (eos_token){OTHERS}")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "BPE"}}', "\0"])
def test_a_damaged_file_is_refused(folders, tmp_path, content):
    folder = copy(folders["gpt-2"], tmp_path)
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load_pretrained(str(folder))
    assert str(caught.value).startswith(f"--tokenizer {folder}: it cannot be read (")
    assert str(caught.value).endswith(f"){OTHERS}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.model", "vocab.txt", "vocab.json"])
def test_a_folder_without_such_a_tokenizer_is_refused(tmp_path, file):
    (tmp_path / file).write_text("{}")
    reason = "it has neither tokenizer.json nor vocab.json and merges.txt, so no byte-level BPE"
    check_refused(tmp_path, f"{reason}{OTHERS}")


@pytest.mark.parametrize("name", ["/no/such", "./none", "a b", "a/b/c", "", "x" * 300, "\0"])
def test_what_is_no_name_is_refused(name):
    check_refused(name, f"no such folder{OTHERS}")


def test_a_file_in_place_of_its_folder_is_refused(folders):
    check_refused(folders["gpt-2"] / "tokenizer.json", "a file; give the folder it is in")


def test_a_hub_that_cannot_be_reached_is_said_soon(tmp_path):
    code = (
        "import sys; from custom_llm.tokenizer.pretrained import load_pretrained; "
        "from custom_llm.common.errors import run; sys.exit(run(lambda _: load_pretrained('gpt2')))"
    )
    environment = {**ENVIRONMENT, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert time.monotonic() - start < 15
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: --tokenizer gpt2: no such folder, and the Hugging Face hub cannot be reached; give a folder that holds "
        "tokenizer.json, take char or bpe, or add --fallback for byte pairs learnt from the text\n",
    )


def test_an_answer_that_is_none_of_a_hub_is_one_line(monkeypatch):
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    odd = mock.Mock(side_effect=AttributeError("'list' object has no attribute 'get'"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", odd)
    with pytest.raises(
        UserError, match=r"the hub does not give tokenizer.json .* has no attribute 'get'.; give a folder$"
    ):
        load_pretrained("owner/name")


def test_ids_in_the_middle_of_a_character_give_replacement_characters(exported):
    tokenizer = exported["qwen2"][0]
    ids = np.arange(tokenizer.vocab_size, dtype=np.int32)
    joined = b"".join(tokenizer.bytes[i] for i in ids)
    assert tokenizer.decode(ids) == joined.decode("utf-8", "replace")
    assert len(tokenizer.tokens) == tokenizer.vocab_size


PREFIX = dict(continuing_subword_prefix="##")


@pytest.mark.parametrize(
    "form", [PREFIX, dict(end_of_word_suffix="</w>"), dict(type="WordPiece"), dict(type="WordLevel")]
)
def test_a_model_that_makes_the_library_panic_is_one_line(folders, tmp_path, form):
    folder = copy(folders["gpt-2"], tmp_path)
    change(folder / "tokenizer.json", lambda c: c["model"].update(form))
    code = (
        "import sys; from custom_llm.tokenizer.pretrained import load_pretrained; "
        "from custom_llm.common.errors import run; sys.exit(run(lambda _: load_pretrained(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --tokenizer {folder}: its model is ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("file", ["tokenizer.json", "added_tokens.json", "vocab.json", "tokenizer_config.json"])
def test_an_id_beyond_all_others_is_refused_at_once(folders, tmp_path, file):
    folder = copy(folders["gpt-2"], tmp_path)
    model = json.loads((folder / "tokenizer.json").read_bytes())["model"]
    if file == "tokenizer.json":
        change(folder / file, lambda c: c["model"]["vocab"].update(far=2**31))
    elif file == "tokenizer_config.json":
        change(folder / file, lambda c: c.update(added_tokens_decoder={str(2**31): {"content": "<far>"}}))
    elif file == "added_tokens.json":
        (folder / file).write_text(json.dumps({"<far>": 2**31}))
    else:
        (folder / "tokenizer.json").unlink()
        (folder / file).write_text(json.dumps({**model["vocab"], "far": 2**31}))
        (folder / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]))
    start = time.monotonic()
    with pytest.raises(UserError, match=r"its ids have holes: 2147483649 rows, but no token \d+; take char, bpe"):
        load_pretrained(str(folder))
    assert time.monotonic() - start < 5
