"""Text in parts: nothing lost, and no tokenizer sees where it was cut."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.tokenizer import cut as chunks
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.bpe import BPETokenizer
from custom_llm.tokenizer.cut import rechunk, split, up_to

PIECES = st.lists(
    st.one_of(st.text(" \n\tab.,1é狐山、。", max_size=9), st.sampled_from([END_OF_TEXT, "\n\n", " ", "it's"]))
)


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


@given(st.lists(st.sampled_from(["狐", "two", "<", "<|", "<|end", "oftext|>", END_OF_TEXT])), st.integers(1, 50))
def test_a_bound_is_exact_but_for_a_part_of_a_separator(pieces, bound):
    text, cut = "".join(pieces), "".join(up_to(bound, pieces))
    left_out = text[:bound].removeprefix(cut)
    assert cut + left_out == text[:bound]
    if left_out:
        assert END_OF_TEXT.startswith(left_out) and left_out != END_OF_TEXT
    else:
        assert len(text) <= bound or not END_OF_TEXT.startswith(cut[cut.rfind("<") :]) or cut.endswith(END_OF_TEXT)


def test_a_bound_asks_for_no_more_than_it_needs():
    assert "".join(up_to(5, (1 / 0 if i == 2 else "abc" for i in range(3)))) == "abcab"


@given(st.lists(st.sampled_from(["x", "<|", "endoftext|>", END_OF_TEXT])), st.integers(1, 5), st.integers(13, 20))
def test_memory_is_bounded_where_a_text_has_no_place_to_be_cut(pieces, size, longest):
    with mock.patch.object(chunks, "LONGEST", longest):
        parts = list(rechunk(pieces, size))
    assert "".join(parts) == "".join(pieces)
    assert max(map(len, parts), default=0) <= size + longest
    assert sum(part.count(END_OF_TEXT) for part in parts) == "".join(pieces).count(END_OF_TEXT)


def test_chinese_without_spaces_is_cut_at_its_punctuation():
    parts = list(rechunk(["红风筝飞得很高。她跑上山去，风很大！\n\n"] * 1000, 100))
    assert max(map(len, parts)) < 140


def test_parts_of_long_texts_are_not_much_longer_than_asked():
    pieces = ["The fox, 12 of them.\n\nA line\n"] * 10_000
    assert max(map(len, rechunk(pieces, 1000))) < 1100
    assert len(list(rechunk(["x"] * 100_000, 10))) == 1  # nowhere to cut, and no hour of looking for it
