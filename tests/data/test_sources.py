"""Files, folders, globs: what is read, in which order, and that it can be learned and exported."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow
import pytest
from conftest import configure, run_script
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from custom_llm.common.errors import UserError
from custom_llm.data import readers
from custom_llm.data.readers import read_documents
from custom_llm.data.sources import find_files, open_corpus, read_text
from custom_llm.tokenizer.base import END_OF_TEXT

STORIES = [f"Story {i}: the fox — »ж« 狐 — said {'ha' * i}.\nThe end.\n" for i in range(40)]


def documents_of(spec, field=None):
    """Each document of each file as one text."""
    files = find_files(str(spec))
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
    assert [path.name for path in find_files(str(notes / "*.*"))] == ["B.TXT", "a.md", "c.jsonl.gz", "d.csv", "f.png"]
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
    with pytest.raises(UserError, match="has no column story; it has id, text: --text_field names one"):
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
        find_files(str(tmp_path))


def test_a_bound_takes_no_part_of_a_separator(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(f"One{END_OF_TEXT}Two", encoding="utf-8")
    texts = ["".join(open_corpus(str(path), max_chars=bound).read()) for bound in range(1, 18)]
    assert texts == ["O", "On", *["One"] * 13, f"One{END_OF_TEXT}", f"One{END_OF_TEXT}T"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_longer_than_memory_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(readers, "LONGEST", 1000)
    (tmp_path / name).write_text("x" * 1001, encoding="utf-8")
    with pytest.raises(UserError, match="has a line of more than 1,000 characters; put each document on its own line"):
        documents_of(tmp_path / name)
