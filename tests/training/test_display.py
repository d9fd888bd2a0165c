"""What is shown of a text and of a training: how texts begin, tokens one by one, options without effect."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
from conftest import STORY
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.config.training import TrainConfig
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.load import find_recipe
from custom_llm.training.display import PICTURED, beginning_of, pieces_of
from custom_llm.training.idle import too_much_for, without_effect

LETTERS = "Liebe Anna, es regnet.\nDie Straße glänzt.\n"


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize(
    "text,expected",
    [
        (STORY * 40, END_OF_TEXT),
        ((LETTERS + "\n") * 40, "\n\n"),
        (LETTERS * 40 + "\n\n", "\n"),
        (LETTERS.replace("\n", " ") * 40, END_OF_TEXT),
    ],
    ids=["documents", "paragraphs", "lines", "neither"],
)
def test_a_sample_begins_where_texts_begin(kind, text, expected):
    text = END_OF_TEXT + text
    tokenizer = find_recipe(kind, 300).make(iter([text]))
    assert tokenizer.decode(beginning_of(tokenizer.encode(text), tokenizer)) == expected


BYTES = find_recipe("bpe", 300).make(iter([LETTERS * 20 + "日本語"]))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=200))
def test_the_pieces_of_a_text_are_its_beginning(text):
    text = LETTERS + BYTES.decode(BYTES.encode(text).tolist())
    ids = BYTES.encode(text)
    pieces = pieces_of(ids, BYTES)
    assert text.startswith("".join(pieces)) and len(pieces) <= PICTURED
    assert len(ids) > PICTURED or "".join(pieces) == text


def said(config: TrainConfig, n_steps: int = 100, n_tokens: int = 4000, per_step: int = 512, windows: int = 60) -> str:
    return " ".join([*without_effect(config), *too_much_for(config, n_steps, n_tokens, per_step, windows)])


def test_what_is_not_said_of_options_is_not_warned_of():
    assert said(TrainConfig(), n_steps=1, n_tokens=10, per_step=4096, windows=1) == ""


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(warmup_steps=100), "--warmup_steps 100: this training has 100 steps"),
        (dict(eval_interval=101), "its only report is at the end"),
        (dict(ckpt_interval=101), "its only checkpoint is at the end"),
        (dict(patience=6), "--patience 6 cannot end this training"),
        (dict(patience=20, eval_interval=5), "--patience 20 cannot end"),
        (dict(batch_size=64), "--batch_size 64: a step reads all 60 windows"),
        (dict(threads=(os.cpu_count() or 1) + 1), f"this machine has {os.cpu_count()}"),
        (dict(schedule="constant", min_lr=1e-6), "--min_lr 1e-06 has no effect"),
        (dict(strategy="fsdp"), "start several with torchrun"),
    ],
    ids=str,
)
def test_an_option_that_has_no_effect_is_said(options, words):
    assert words in said(TrainConfig(**options))
    if "warmup_steps" in options:
        advised = int(re.search(r"--warmup_steps (\d+) would be", said(TrainConfig(**options)))[1])
        assert said(replace(TrainConfig(), warmup_steps=advised)) == ""


def test_more_tokens_in_a_step_than_there_are():
    assert "a step reads all 4,000 tokens" in said(TrainConfig(total_batch_size="2**13"), per_step=8192)
