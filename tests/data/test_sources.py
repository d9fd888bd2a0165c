"""Files, folders, globs: what is read, in which order, and that it can be learned and exported."""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
import os
from pathlib import Path

import pyarrow
import pytest
from conftest import configure, run_script
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from custom_llm.common.errors import UserError
from custom_llm.data import readers, sources, text
from custom_llm.data.readers import read_documents
from custom_llm.data.sources import open_corpus, read_text
from custom_llm.tokenizer.base import END_OF_TEXT

STORIES = [f"Story {i}: the fox — »ж« 狐 — said {'ha' * i}.\nThe end.\n" for i in range(40)]


def documents_of(spec, field=None):
    """Each document of each file as one text."""
    files = open_corpus(str(spec)).files
    return ["".join(pieces) for path in files for pieces in read_documents(path, "utf-8", field)]


@pytest.fixture
def notes(tmp_path):
    """A folder of everything, with things in it that are not text."""
    folder = tmp_path / "notes"
    (folder / "deep/er").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "a.md").write_bytes(b"\xef\xbb\xbf# First\r\nline\r\n")
    (folder / "B.TXT").write_text("second", encoding="utf-8")
    lines = [json.dumps({"id": i, "text": story}) for i, story in enumerate(STORIES)]
    (folder / "c.jsonl.gz").write_bytes(gzip.compress("\n\n".join(lines).encode()))
    (folder / "d.csv").write_text('id,text\n1,"one, two\nthree"\n2,"say ""hi"""\n', encoding="utf-8")
    (folder / "deep/er/e.tsv").write_text("text\tid\nlast\t1\n", encoding="utf-8")
    (folder / "f.png").write_bytes(b"\x89PNG\0")
    (folder / ".hidden.txt").write_text("hidden", encoding="utf-8")
    (folder / ".git/config.txt").write_text("hidden", encoding="utf-8")
    return folder


EXPECTED = ["second", "# First\nline\n", *STORIES, "one, two\nthree", 'say "hi"', "last"]


def test_a_folder_is_read_in_order_without_what_is_no_text(notes):
    assert documents_of(notes) == EXPECTED
    assert read_text(str(notes)) == END_OF_TEXT.join(EXPECTED)


def test_globs_and_lists_of_files(notes, monkeypatch):
    monkeypatch.chdir(notes)
    assert documents_of("*.md") == ["# First\nline\n"]
    assert documents_of("**/*.tsv") == ["last"]
    assert documents_of("B.TXT, a.md,B.TXT") == ["second", "# First\nline\n"]
    assert [path.name for path in open_corpus(str(notes / "*.*")).files] == [
        "B.TXT",
        "a.md",
        "c.jsonl.gz",
        "d.csv",
        "f.png",
    ]
    (notes / "x, y [1].txt").write_text("a name with everything", encoding="utf-8")
    assert documents_of("x, y [1].txt") == ["a name with everything"]


def test_another_field(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "once"}\n{"story": "twice"}\n', encoding="utf-8")
    assert documents_of(tmp_path / "a.jsonl", field="story") == ["once", "twice"]
    with pytest.raises(UserError, match="line 1 has no text; it has story: --text_field names one"):
        documents_of(tmp_path / "a.jsonl")


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": range(len(STORIES)), "text": STORIES}), path, row_group_size=7)
    assert documents_of(path) == STORIES
    with pytest.raises(UserError, match="has no column story; it has text: --text_field names one"):
        documents_of(path, field="story")
    with pytest.raises(UserError, match="its id is no text"):
        documents_of(path, field="id")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        documents_of(path)


@given(st.lists(st.text(), max_size=5))
def test_what_is_in_a_jsonl_comes_out(tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    if any("\0" in text for text in documents):
        with pytest.raises(UserError, match="NUL byte"):
            documents_of(path)
        return
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in documents]
    assert documents_of(path) == expected


@pytest.mark.parametrize(
    "source", ["notes", *(pytest.param(source, marks=pytest.mark.slow) for source in ("a.parquet", "notes/*.gz"))]
)
def test_every_source_goes_all_the_way(notes, source):
    parquet.write_table(pyarrow.table({"text": STORIES}), notes.parent / "a.parquet")
    configure(notes.parent, n_embd=32, n_head=4, n_layer=2, block_size=32, dropout=0.0, vocab_size=99)
    trained = run_script(
        "train_llm.py", "--dataset_path", source, "--max_epochs", "1", "--batch_size", "8", "--learning_rate", "0.0005",
        cwd=notes.parent,
    )  # fmt: skip
    assert trained.status == 0, trained.stderr
    converted = run_script("convert_to_gguf.py", "--quant_type", "Q8_0", "--llama_cpp_path", "none", cwd=notes.parent)
    assert (converted.status, converted.stderr) == (0, "")
    said = run_script(
        "inference_gguf.py", "--query", "Story 狐", "--max_tokens", "20", "--ignore_eos", cwd=notes.parent
    )
    assert said.stdout.startswith("Story 狐")


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def closed(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)  # root may read everything
    with pytest.raises(UserError, match=r"cannot read .*closed: permission denied"):
        open_corpus(str(tmp_path))


def test_a_bound_takes_no_part_of_a_separator(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(f"One{END_OF_TEXT}Two", encoding="utf-8")
    texts = ["".join(open_corpus(str(path), max_chars=bound).read()) for bound in range(1, 18)]
    assert texts == ["O", "On", *["One"] * 13, f"One{END_OF_TEXT}", f"One{END_OF_TEXT}T"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_longer_than_memory_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text, "LONGEST", 1000)
    (tmp_path / name).write_text("x" * 1001, encoding="utf-8")
    with pytest.raises(UserError, match="has a line of more than 1,000 characters; put a document on each line"):
        documents_of(tmp_path / name)


def test_a_folder_of_code_is_read_without_what_is_none(tmp_path, monkeypatch):
    """As in a checkout, with what tools and earlier trainings have left in it."""
    monkeypatch.chdir(tmp_path)
    texts = {"app.py": "print(1)\n", "lib/mod.rs": "fn a() {}\n", "lib/old.c": "int x;\n", "web/site.css": "a {}\n"}
    others = {
        ".git/config.txt": "x", "node_modules/a/index.js": "x", "__pycache__/a.py": "x", ".venv/a.py": "x",
        "env/pyvenv.cfg": "x", "env/lib.py": "x", "quickstart/model_config.pth": "x", "quickstart/stories.txt": "x",
        "hf_model/config.json": "{}", "hf_model/model.safetensors": "x", "hf_model/README.md": "x",
        "trained_model.report.html": "<p>x", "trained_model.loss.csv": "text\nx\n", "model.gguf": "x", "a.png": "x",
        "package.json": '{"name": "a", "version": 1}', "latin.c": "// caf\xe9\n", "binary.h": "\0\1",
    }  # fmt: skip
    for name, content in {**texts, **others}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content.encode("latin-1"))
    corpus = open_corpus(".")
    left_out = readers.LeftOut()
    assert "".join(corpus.read(left_out=left_out)) == END_OF_TEXT.join(texts.values())
    assert corpus.left_out == "4 of models, 3 of programs (node_modules, …), 2 hidden, 1 .png, 1 .gguf"
    assert str(left_out).startswith("left out: 3 files (binary.h is not plain text")
    with pytest.raises(UserError, match=r"latin\.c is not utf-8 text .* name its encoding, such as --encoding latin-1"):
        read_text("latin.c")  # what was named is not left out
    assert "caf\xe9" in read_text("latin.c", "latin-1")
    Path("windows.txt").write_bytes(b"a \x93quoted\x94 word")
    with pytest.raises(UserError, match="such as --encoding cp1252"):
        read_text("windows.txt")
    assert read_text("windows.txt", "cp1252") == "a \u201cquoted\u201d word"
    Path("empty").mkdir()
    Path("empty/a.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(
        UserError, match=r"without a text but has 1 \.doc; name .* with a glob \(empty/\*\), or save it as"
    ):
        open_corpus("empty")
    Path("empty/a.csv").write_text("id,story\n1,once\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"holds no text; left out: 1 file \(.*has no text; it has id, story: --text_field"
    ):
        read_text("empty")
    assert read_text("empty", field="story") == "once"


def linked(folder: Path) -> Path:
    """Two files of one text, and links that lead in circles."""
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("One.", encoding="utf-8")
    (folder / "deep/b.txt").write_text("Two.", encoding="utf-8")
    (folder / "one").symlink_to(".")
    (folder / "deep/two").symlink_to("..")
    (folder / "c.txt").symlink_to("a.txt")
    os.link(folder / "deep/b.txt", folder / "deep/d.txt")
    return folder


@pytest.mark.parametrize(
    "spec", ["notes", "notes/", "notes/**", "notes/**/*.txt", "n*/**/*.txt", "**/**/*.txt", "notes/one/**/*.txt",
             "notes/*.txt,notes/deep/*", "notes,notes/one/a.txt,notes/deep/two", "{here}/notes/**/*.txt"]
)  # fmt: skip
def test_a_file_behind_several_names_is_one_document(tmp_path, monkeypatch, spec):
    linked(tmp_path / "notes")
    monkeypatch.chdir(tmp_path)
    assert read_text(spec.format(here=tmp_path)) == f"One.{END_OF_TEXT}Two."


@given(st.lists(st.sampled_from(["a", "b.txt", ".h", "*", "**", "?"]), max_size=3), st.sampled_from(["*", "b.txt"]))
def test_a_glob_finds_what_the_library_finds_where_there_are_no_links(tmp_path_factory, parts, last):
    folder = tmp_path_factory.mktemp("glob")
    for name in ("a/a/b.txt", "a/.h/b.txt", "b.txt/a/a.txt", ".h/a/b.txt", "a/b.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    pattern = str(folder.joinpath(*parts, last))
    ours, theirs = sources.expand(pattern), glob.glob(pattern, recursive=True)  # noqa: PTH207
    assert {os.path.realpath(name) for name in ours} == {os.path.realpath(name) for name in theirs}


RECORDS = {
    "a list": ([{"text": "One."}, {"text": None}, {"text": "Two."}], None),
    "texts": (["One.", "Two."], None),
    "in an object": ({"version": 1, "data": [{"text": "One."}, {"text": "Two."}]}, None),
    "by name": ({"a": {"text": "One."}, "b": {"text": "Two."}}, None),
    "nested": ({"type": "FeatureCollection", "features": [
        {"geometry": {"coordinates": [1, 2]}, "properties": {"name": "One."}}, {"properties": {"name": "Two."}},
    ]}, "properties.name"),
}  # fmt: skip


@pytest.mark.parametrize("pack", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("form", RECORDS)
def test_json_is_read_as_records(tmp_path, form, pack):
    values, field = RECORDS[form]
    pack_bytes = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[pack]
    path = tmp_path / f"a.json{pack}"
    path.write_bytes(pack_bytes(json.dumps(values, indent=1).encode()))
    if field is not None:
        with pytest.raises(UserError, match=f"it has {field}: --text_field names one"):
            documents_of(path)
    assert documents_of(path, field) == ["One.", "Two."]
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(UserError, match=r"is not (a whole \.\w+ file|JSON): "):
        documents_of(path, field)


def test_a_notebook_is_what_was_written_into_it(tmp_path):
    cells = [{"cell_type": "markdown", "source": ["# Rain\n", "It rains."]}, {"source": "print(1)", "outputs": ["1"]}]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8")
    assert documents_of(tmp_path) == ["# Rain\nIt rains.\n\nprint(1)\n\n"]
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.ipynb is not a notebook with cells"):
        documents_of(path)


def test_json_that_is_no_records(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"text": "One."}\n{"text": "Two."}\n', encoding="utf-8")  # many call JSON lines so
    assert documents_of(path) == ["One.", "Two."]
    path.write_text('{"a": [1, 2], "b": 3}', encoding="utf-8")
    with pytest.raises(UserError, match=r"nothing in it is one; .* let this one's name end in \.txt to learn it as"):
        documents_of(path)
    path.write_text('[{"title": "x", "mapping": {"a": {"message": null}}}]', encoding="utf-8")
    with pytest.raises(
        UserError, match="looks like ChatGPT's own export, which is not read; copy its texts into a file"
    ):
        documents_of(path)


CHAT = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": None}, {"from": "gpt", "value": "Yes?"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_messages_are_learnt_as_plain_text_as_the_advice_says(tmp_path, name):
    rows = [{"id": 1, "messages": CHAT[:2]}, {"id": 2, "messages": None}, {"id": 3, "messages": CHAT[:1]}]
    path = tmp_path / name
    if name == "a.parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(UserError, match="a conversation: --text_field messages learns it as plain text"):
        documents_of(path)
    assert documents_of(path, "messages") == ["user: Hi!\n", "user: Hi!\n"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.json"])
def test_rows_without_a_text_are_skipped_and_counted(tmp_path, name):
    path = tmp_path / name
    rows = [{"id": "1", "text": None}, {"id": "2", "text": "Two."}, {"id": "3"}, {"id": "4", "text": "Four."}]
    if name == "a.parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name == "a.csv":
        path.write_text("id,text\n1\n2,Two.\n3\n4,Four.\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    left_out = readers.LeftOut()
    assert "".join(open_corpus(str(path)).read(left_out=left_out)) == f"Two.{END_OF_TEXT}Four."
    assert str(left_out) == f"left out: 2 rows of {path} without a text"
    if name != "a.csv":
        parquet.write_table(pyarrow.table({"text": ["a", "b", "c\0"]}), tmp_path / "b.parquet")
        with pytest.raises(UserError, match=r"b\.parquet, row 3 is not plain text \(NUL byte"):
            documents_of(tmp_path / "b.parquet")


def test_a_changed_byte_in_parquet_is_noticed_where_its_writer_left_checksums(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(
        pyarrow.table({"text": STORIES}), path, write_page_checksum=True, compression="none", use_dictionary=False
    )
    assert documents_of(path) == STORIES
    content = bytearray(path.read_bytes())
    content[content.index(b"Story 7")] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet is not a whole Parquet file: .*CRC"):
        documents_of(path)
