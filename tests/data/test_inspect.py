"""What `train_llm.py --inspect` says about a text."""

from __future__ import annotations

import pytest
from conftest import STORY, configure, run_script
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.data.inspect import inspect
from custom_llm.data.token_file import Tokens
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.tokenizer.load import find_recipe


def said(documents, n_parameters=100, block_size=8):
    text = END_OF_TEXT.join(documents)
    tokenizer = CharTokenizer.from_text(text)
    tokens = Tokens(tokenizer.encode(END_OF_TEXT + text), tokenizer, len(text), text)
    return "\n".join(inspect(text, tokens, n_parameters, block_size))


def test_a_text_is_described():
    out = said(["Привет, мир! " * 50, "Hello<|endoftext|>World, hello. " * 20])
    assert "documents   22, of" in out
    assert "Cyrillic 60.0%, Latin 40.0%" in out
    assert "19 different ones" in out
    assert "rarest      'H' 20×, 'W' 20×" in out
    assert "vocabulary  20 tokens, 20 of which occur" in out
    assert "tokens      1,052 of 1.67 bytes, 131.5 windows of 8" in out
    assert "    Привет, мир! Привет" in out
    assert "bytes in UTF-8" in out


@pytest.mark.parametrize(
    ("documents", "warning"),
    [
        (["cafÃ© and itâ€™s naÃ¯ve. " * 99], "297 characters look damaged"),
        (["a\ufffdb " * 99], "99 characters look damaged"),
        (["The same.\n"] * 9 + ["Another one.\n"], "one document stands 9 times among 10"),
        (["The same line.\n" * 500], "100% of the lines are repetitions"),
        (["abc"], "25 parameters for each token"),
        (["".join(map(chr, range(0x4E00, 0x4F00))) * 3], "257 of 257 tokens occur less than 5 times"),
        (["abc " * 30], "there are few windows of 8 tokens"),
    ],
)
def test_what_would_go_wrong_is_said(documents, warning):
    assert f"warning: {warning}" in said(documents)


def test_a_good_text_is_not_complained_about():
    assert "warning" not in said(
        [f"Number {i} is {'even' if i % 2 else 'odd'}, and {i + 1} is not.\n" for i in range(99)]
    )


@given(st.lists(st.text(min_size=1), min_size=1))
def test_any_text_can_be_looked_at(documents):
    assert said(documents)


def test_letters_of_no_script_are_left_out():
    out = said(["abc ℂ µ ⁿ ª ー 漢字 ℵ ½ ² Kelvin"])
    assert "scripts     Latin 84.6%, Han 15.4%\n" in out


@pytest.mark.parametrize("in_colour", [False, True])
def test_the_text_is_shown_as_tokens(in_colour):
    text = "Café\tau lait.\n\nIt rains again.\x1b[31m\n" * 9
    tokenizer = find_recipe("bpe", 300).make([text])
    tokens = Tokens(tokenizer.encode(END_OF_TEXT + text), tokenizer, len(text), text)
    out = list(inspect(text, tokens, 100, 8, in_colour))
    shown = out[out.index("  as tokens:") + 1 :]
    if in_colour:
        assert "".join(shown).count("\x1b[7m") > 5
    else:
        assert shown[:3] == ["    Café|→|au| lait|.|⏎", "    ⏎", "    It| rains| again|.[|31|m|⏎"]
    assert "\x1b[31m" not in "".join(shown)


def test_a_model_need_not_be_configured(tmp_path):
    (tmp_path / "notes.txt").write_text(STORY * 500, encoding="utf-8")
    result = run_script("train_llm.py", "--inspect", "--dataset_path", "notes.txt", cwd=tmp_path)
    assert result.status == 0
    assert result.stderr == (
        "note: model_config.pth is not there yet; the model is what would suit this text and 2 minutes\n"
    )
    assert "  model       0." not in result.stdout and "  model       " in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_trained_or_written(tmp_path):
    configure(tmp_path, n_embd=32, n_head=4)
    (tmp_path / "notes.txt").write_text(STORY * 50, encoding="utf-8")
    before = (tmp_path / "model_config.pth").read_bytes()
    result = run_script("train_llm.py", "--inspect", "--dataset_path", "notes.txt", cwd=tmp_path)
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith("notes.txt\n  documents   50, of 94 characters on average\n")
    assert "warning: one document stands 50 times among 50; the model will memorise it" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"model_config.pth", "notes.txt"}
    assert (tmp_path / "model_config.pth").read_bytes() == before


@pytest.mark.parametrize(
    ("n_lines", "advice"), [(100, ""), (60_000, "tip: --tokenizer bpe --vocab_size 4096 learns more")]
)
def test_advice_on_the_vocabulary(tmp_path, n_lines, advice):
    (tmp_path / "input.txt").write_text("".join(f"Line {i} of it.\n" for i in range(n_lines)), encoding="utf-8")
    configure(tmp_path, n_embd=32, n_head=4)
    result = run_script("train_llm.py", "--inspect", cwd=tmp_path)
    assert (result.status, result.stderr[: len(advice)]) == (0, advice)
    assert bool(result.stderr) == bool(advice)
    if advice:  # which byte pairs need not
        bpe = run_script("train_llm.py", "--inspect", "--tokenizer", "bpe", "--vocab_size", "300", cwd=tmp_path)
        assert (bpe.status, bpe.stderr) == (0, "")
        assert "  as tokens:\n    Line|" in bpe.stdout
