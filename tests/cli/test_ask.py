"""The questions at a terminal: what they are about, what Enter took, what is asked again, and how to leave."""

from __future__ import annotations

import os
import re
import sys

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, STORY
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.cli.fields import with_point

pty = pytest.importorskip("pty", reason="a terminal as other systems have it")
CTRL_D = b"\x04"


def at_a_terminal(script: str, *flags: str, cwd, answers: list[bytes | str]) -> tuple[int, str]:
    """Type an answer at each question; the exit status, and what the terminal showed."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(sys.executable, [sys.executable, str(ROOT / script), *flags], ENVIRONMENT)
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
            if answers and re.search(rb"Enter [^\n]*: $", shown):
                answer = answers.pop(0)
                os.write(terminal, answer if isinstance(answer, bytes) else answer.encode() + b"\n")
                shown += b"\n"
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode().replace("\r", "")


def test_a_person_sees_what_a_question_is_about_and_what_enter_took(tmp_path):
    status, shown = at_a_terminal("llm_model.py", cwd=tmp_path, answers=["", "64", "", "1", "16", "0,25"])
    assert status == 0
    assert "--preset auto chooses sizes for your text and your minutes" in shown.splitlines()[0]
    for line in (
        "tokens the model knows; training with characters takes as many as there are in the text instead",
        "  Enter: 10000",
        "  width of the model",
        "  Enter: 8",
    ):
        assert line in shown
    assert "Enter: 64" not in shown, "it was typed"
    config = torch.load(tmp_path / "model_config.pth", weights_only=True)
    assert [config[name] for name in ("n_embd", "n_layer", "block_size", "dropout")] == [64, 1, 16, 0.25]


def test_ctrl_d_leaves(tmp_path):
    status, shown = at_a_terminal("llm_model.py", cwd=tmp_path, answers=["", CTRL_D])
    assert status == 130 and shown.rstrip().endswith("interrupted")
    assert not list(tmp_path.iterdir())


def test_a_mistyped_path_is_asked_for_again(tmp_path):
    (tmp_path / "notes.txt").write_text(STORY * 30)
    flags = ("--preset", "auto", "--minutes", "1")
    status, shown = at_a_terminal("llm_model.py", *flags, cwd=tmp_path, answers=["nots.txt", "notes.txt"])
    assert status == 0
    assert "nots.txt: no such file; give the path of a text file or a folder of them; try again." in shown
    assert "next: python train_llm.py --dataset_path notes.txt --minutes 1 --batch_size 8 --learning_rate" in shown


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_a_decimal_comma_is_a_point(number, places):
    text = f"{number / 10**places:.{places}f}"
    typed = text.replace(".", ",")
    is_ambiguous = places == 3 and re.fullmatch(r"[1-9]\d{0,2},\d{3}", typed)  # 1,000 may be a thousand
    assert with_point(typed) == (typed if is_ambiguous else text)


@given(st.text(max_size=12))
def test_what_is_no_number_with_a_comma_stays(text):
    if not re.fullmatch(r"-?\d*,\d+(e-?\d+)?", text.strip()):
        assert with_point(text) == text
