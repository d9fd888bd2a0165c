"""Text, tokenizers and windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from custom_llm.common.errors import UserError
from custom_llm.data.dataset import TextDataset, WindowLoader, WindowSampler
from custom_llm.data.sources import read_text
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.load import load_tokenizer

TEXTS = st.lists(st.one_of(st.text(), st.just(END_OF_TEXT)), min_size=1, max_size=6).map("".join)


@given(TEXTS)
def test_decode_undoes_encode(text):
    tokenizer = CharTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknown(text) == []


@given(TEXTS)
def test_ids_are_those_of_a_plain_loop(text):
    tokenizer = CharTokenizer.from_text(text)
    expected, rest = [], text
    while rest:
        if rest.startswith(END_OF_TEXT):
            expected.append(len(tokenizer.chars))
            rest = rest[len(END_OF_TEXT) :]
        else:
            expected.append(tokenizer.chars.index(rest[0]))
            rest = rest[1:]
    assert tokenizer.encode(text).tolist() == expected


@given(st.text(), st.text())
def test_what_is_not_in_the_vocabulary_is_named_and_left_out(known, text):
    tokenizer = CharTokenizer.from_text(known, end_of_text=False)
    assert tokenizer.unknown(text) == sorted(set(text) - set(known))
    assert tokenizer.decode(tokenizer.encode(text)) == "".join(char for char in text if char in known)


@given(TEXTS, st.booleans())
def test_a_saved_tokenizer_is_the_same(text, end_of_text):
    tokenizer = CharTokenizer.from_text(text, end_of_text)
    assert load_tokenizer(tokenizer.to_dict()).encode(text).tolist() == tokenizer.encode(text).tolist()


def test_dataset_is_the_tutorials():
    dataset = TextDataset("hello world", 5)
    assert (dataset.vocab_size, len(dataset)) == (8, 6)
    assert dataset.itos[dataset.stoi["h"]] == "h"
    x, y = dataset[1]
    assert x.tolist() == dataset.data[1:6].tolist()
    assert y.tolist() == dataset.data[2:7].tolist()
    with pytest.raises(IndexError):
        dataset[6]


@given(st.integers(1, 9), st.data())
def test_a_batch_is_its_items(block_size, data):
    dataset = TextDataset("the quick brown fox", block_size)
    indices = data.draw(st.lists(st.integers(0, len(dataset) - 1), min_size=1, max_size=5))
    x, y = dataset.__getitems__(indices)
    assert x.tolist() == [dataset[i][0].tolist() for i in indices]
    assert y.tolist() == [dataset[i][1].tolist() for i in indices]


def test_a_plain_dataloader_gives_pairs():
    for x, y in DataLoader(TextDataset("abcdefghijk" * 9, 8), batch_size=4):
        assert x.shape == y.shape
        assert torch.equal(x[:, 1:], y[:, :-1])


@given(st.integers(1, 200), st.integers(1, 40))
@settings(max_examples=50)
def test_an_epoch_reads_every_token_once(n_tokens, block_size):
    dataset = TextDataset("a" * (n_tokens + block_size), block_size)
    dataset.data = torch.arange(len(dataset.data))  # so that every token can be told from the others
    sampler = WindowSampler(dataset, block_size, torch.Generator().manual_seed(n_tokens))
    first, second = list(sampler), list(sampler)
    for starts in (first, second):
        assert 1 <= len(starts) <= len(sampler)
        read = sorted(token for start in starts for token in range(start, start + block_size))
        assert len(set(read)) == len(read), "read twice"
        assert read == list(range(read[0], read[-1] + 1)), "a gap"
        assert read[0] < block_size and n_tokens + block_size - 1 - read[-1] <= block_size


def test_stride_1_reads_every_window():
    dataset = TextDataset("a story of some length", 4)
    loader = WindowLoader(dataset, batch_size=3, stride=1, seed=0)
    assert sum(len(x) for x, _ in loader) == len(dataset)


def test_order_is_fixed_by_the_seed_and_new_each_epoch():
    dataset = TextDataset("abcdefghijklmnopqrstuvwxyz" * 10, 8)
    loader, again = (WindowLoader(dataset, 4, None, seed=7) for _ in range(2))
    epochs = [[x.tolist() for x, _ in loader] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] == [x.tolist() for x, _ in again]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        ("\ufeffmark".encode(), "mark"),
        ("größe 中文 😀".encode("utf-16"), "größe 中文 😀"),
        ("größe 中文 😀".encode("utf-32"), "größe 中文 😀"),
    ],
)
def test_text_files_as_people_have_them(tmp_path, content, text):
    path = tmp_path / "input.txt"
    path.write_bytes(content)
    assert read_text(path) == text


def test_an_encoding_can_be_named(tmp_path):
    path = tmp_path / "input.txt"
    path.write_bytes("naïve".encode("latin-1"))
    assert read_text(path, "latin-1") == "naïve"
    with pytest.raises(UserError, match=r"not utf-8 text \(byte 0xef at offset 2\)"):
        read_text(path)
