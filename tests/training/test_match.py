"""Whether model and text go together, and how often a text is read when nobody has said."""

from __future__ import annotations

import re

import pytest
from conftest import STORY, configure, run_script
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.training.match import MOST_EPOCHS, describe_match, enough_epochs


@given(st.integers(1, 10**9))
def test_nobody_reads_a_text_less_than_five_times_or_for_ever(steps_per_epoch):
    epochs = enough_epochs(steps_per_epoch)
    assert 5 <= epochs <= MOST_EPOCHS
    assert epochs == 5 or epochs == MOST_EPOCHS or (epochs - 1) * steps_per_epoch < 360 <= epochs * steps_per_epoch


@pytest.mark.parametrize(
    ("n_parameters", "n_tokens", "expected"),
    [
        (4_810_000, 72_000, "67 for each: so large a model learns slowly from so short a text, and then memorises it"),
        (120_000, 72_000, "0.12M parameters for 72,000 tokens of text: model and text go together"),
        (120_000, 900, "any model soon memorises so short a text; more text helps most"),
        (10_700_000, 1_100_000, "model and text go together"),  # nanoGPT's for a GPU, on tiny Shakespeare
        (120_000, 20_000_000, "a larger model could learn more of so long a text"),
    ],
)
def test_a_sentence_about_model_and_text(n_parameters, n_tokens, expected):
    said = describe_match(n_parameters, n_tokens, "my notes.txt", None)
    assert expected in said
    if "auto" in said:
        assert said.endswith("python llm_model.py --preset auto --dataset_path 'my notes.txt' --minutes 5")


def test_a_short_text_is_read_until_nothing_more_is_learnt(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 20, encoding="utf-8")
    configure(tmp_path, n_embd=32, n_head=4, n_layer=2, block_size=16, dropout=0.0)
    done = run_script("train_llm.py", cwd=tmp_path, stdin="32\n0.003\n\n\n")
    assert done.status == 0, done.stderr
    assert "max_epochs becomes 90, since 5 of so short a text are 20 steps only" in done.stderr
    assert "model and text go together" in done.stderr or "memorises" in done.stderr
    assert "Epoch 1/90, Loss: " in done.stdout


def test_epochs_that_somebody_has_said_stay(tmp_path):
    (tmp_path / "input.txt").write_text(STORY * 3, encoding="utf-8")
    configure(tmp_path, n_embd=256, n_head=4, n_layer=1, block_size=16, dropout=0.0)
    done = run_script("train_llm.py", cwd=tmp_path, stdin="32\n0.003\n5\n\n")
    assert "max_epochs becomes" not in done.stderr and "Epoch 5/5, Loss: " in done.stdout
    better = re.search(r"for each: .* and sooner: python (llm_model.py) (.*)", done.stderr)
    done = run_script(better[1], *better[2].split(), cwd=tmp_path)
    assert done.status == 0 and "Model initialized with 0.10M" in done.stdout
