"""Text in parts: nothing lost, and no tokenizer sees where it was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.data.bpe import BPETokenizer
from custom_llm.data.chunks import rechunk, split
from custom_llm.data.tokenizer import END_OF_TEXT

PIECES = st.lists(st.one_of(st.text(" \n\tab.,1é狐", max_size=9), st.sampled_from([END_OF_TEXT, "\n\n", " ", "it's"])))


@given(PIECES, st.integers(1, 9))
def test_nothing_is_lost_and_parts_are_large_enough(pieces, size):
    text = "".join(pieces)
    for parts in (list(rechunk(pieces, size)), list(split(text, size))):
        assert "".join(parts) == text
        assert all(len(part) >= size for part in parts[:-1])
        assert sum(part.count(END_OF_TEXT) for part in parts) == text.count(END_OF_TEXT)


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(["a b 1 . , \n\n\n  aab it's  ..\n" * 50], 400)


@given(pieces=PIECES, size=st.integers(1, 9))
def test_tokens_are_the_same_however_a_text_is_cut(tokenizer, pieces, size):
    whole = tokenizer._hf.encode("".join(pieces)).ids
    assert [i for part in rechunk(pieces, size) for i in tokenizer._hf.encode(part).ids] == whole


def test_parts_of_long_texts_are_not_much_longer_than_asked():
    pieces = ["The fox, 12 of them.\n\nA line\n"] * 10_000
    assert max(map(len, rechunk(pieces, 1000))) < 1100
    assert len(list(rechunk(["x"] * 100_000, 10))) == 1  # nowhere to cut, and no hour of looking for it
