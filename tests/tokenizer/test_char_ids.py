"""A vocabulary of characters: the same ids in our tokenizer, in transformers and in llama.cpp."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from vocabularies import MANY, PIECES, SCRIPTS, check_ids, export

from custom_llm.llamacpp import Model
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.char import CharTokenizer

CHARACTERS = SCRIPTS + "".join(PIECES)  # NUL and other control characters among them
TEXTS = st.lists(
    st.one_of(
        st.text(sorted(set(CHARACTERS.replace(END_OF_TEXT, "")))),
        st.sampled_from(SCRIPTS.split(" ")),
        st.sampled_from(PIECES),
    ),
    max_size=10,
).map("".join)


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    tokenizer = CharTokenizer.from_text(CHARACTERS)
    _, hf_dir, path = export(tokenizer, tmp_path_factory.mktemp("char"))
    with Model(path) as runtime:
        yield tokenizer, AutoTokenizer.from_pretrained(hf_dir), runtime


@given(TEXTS)
@settings(max_examples=500, **MANY)
def test_token_ids_are_the_same_everywhere(readers, text):
    check_ids(readers, text)
    assert len(readers[0].encode(text)) == len(text) - text.count(END_OF_TEXT) * (len(END_OF_TEXT) - 1)


@pytest.mark.slow
@given(TEXTS)
@settings(max_examples=20_000, **MANY)
def test_token_ids_are_the_same_everywhere_in_many_texts(readers, text):
    check_ids(readers, text)
