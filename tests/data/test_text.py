"""Files of text, read piece by piece: the same text as read at once, whatever the pieces."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.common.errors import UserError
from custom_llm.data import text as text_module
from custom_llm.data.text import clean, decode, read_file

HERE = Path("a.txt")
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
LINES = st.lists(st.one_of(WORDS, st.sampled_from(["\r\n", "\r", "\n", "é狐🙂", "\ufeff"]))).map("".join)


def pieces_of(content, size):
    return [content[i : i + size] for i in range(0, len(content), size)]


@given(LINES, st.integers(1, 5), st.sampled_from(["utf-8", "utf-16", "utf-32", "gb18030", "utf-8-sig"]))
def test_pieces_make_no_difference(text, size, encoding):
    expected = text.encode(encoding).decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    # A byte-order mark tells UTF-16 and UTF-32 by themselves.
    name = "utf-8" if encoding in ("utf-16", "utf-32") and text else encoding
    contents = text.encode(encoding)
    first = max(size, 4)  # as much as is looked at for the mark
    parts = [contents[:first], *pieces_of(contents[first:], size)]
    assert "".join(clean(decode(parts, HERE, name), HERE)) == expected


@given(st.binary(max_size=40), st.integers(1, 5))
def test_the_first_bad_byte_is_named_wherever_the_pieces_end(content, size):
    content = b"text" + content
    try:
        content.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(UserError, match=rf"\(byte {content[error.start]:#04x} at offset {error.start}\)"):
            list(decode([content[:4], *pieces_of(content[4:], size)], HERE))
    else:
        assert "".join(decode([content[:4], *pieces_of(content[4:], size)], HERE)) == content.decode()


def test_what_is_no_text_is_named_by_its_place():
    with pytest.raises(UserError, match="NUL byte at character 7"):
        list(clean(["abcd\r", "\nx\0y"], HERE))
    with pytest.raises(UserError, match="half a surrogate pair"):
        list(clean(["abcd", "x\ud800y"], HERE))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_file_is_read_in_pieces_and_all_of_it_is_counted(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text_module, "PIECE", 100)
    text = "".join(f"Line {i}: é — 狐.\r\n" for i in range(500))
    content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (tmp_path / name).write_bytes(content)
    counted = []
    pieces = list(read_file(tmp_path / name, on_read=counted.append))
    assert "".join(pieces) == text.replace("\r\n", "\n")
    assert max(map(len, pieces)) <= 101
    assert sum(counted) == len(content)


@given(LINES, st.integers(1, 5))
def test_lines(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(text.encode())
    expected = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "PIECE", size)
        lines = [line.removesuffix("\n") for line in text_module.lines(read_file(path), path)]
    assert lines == (expected if expected[-1] else expected[:-1])
