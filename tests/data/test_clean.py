"""What `--clean` leaves out, what it does not, and who is told of it."""

from __future__ import annotations

import base64
import random
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import run_script
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.data.clean import advice, clean_markdown
from custom_llm.data.sources import read_text
from custom_llm.tokenizer.base import END_OF_TEXT

FRONT = "---\ntitle: Rain\ndate: 2024-03-01\ntags:\n  - rain\n  - Köln\ndraft: false\n---\n\n"
BLOB = base64.b64encode(random.Random(0).randbytes(1000)).decode()
MAIL = "\n".join(BLOB[i : i + 76] for i in range(0, len(BLOB), 76))


def cleaned(text):
    return "".join(clean_markdown([text]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{FRONT}It rains.\n", "It rains.\n"),
        ("+++\ntitle = 'Rain'\n[extra]\na = 1\n+++\nIt rains.", "It rains."),
        (f"A ![cat](data:image/png;base64,{BLOB}) sat.\n", "A  sat.\n"),
        (f"A ![cat][1] sat.\n\n[1]: <data:image/png;base64,{BLOB}>\n", "A ![cat][1] sat.\n\n"),
        (f'<img alt="x" src="data:image/png;base64,{BLOB}">\nIt rains.\n', "It rains.\n"),
        (f"Attached:\n{MAIL}\nIt rains.\n", "Attached:\nIt rains.\n"),
        ("[a](https://a.org/b?utm_source=x&utm_medium=mail)\n", "[a](https://a.org/b)\n"),
        ("See https://a.org/b?fbclid=Iw&page=2#top.\n", "See https://a.org/b?page=2#top.\n"),
    ],
)
def test_what_is_no_text_is_left_out(text, expected):
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "---\nIt rained all day: we stayed in.\n---\nThen the sun came.\n",  # two rules
        "---\nMonday: rain.\n\nTuesday: sun.\n---\n",
        "---\ntitle: it never ends\n\nIt rains.\n",
        "---\n\n---\n",
        "---\n",
        "--- \ntitle: x",
        "It rains.\n---\ntitle: not at the beginning\n---\n",
        "# A heading\n\n```\nx = 1\n```\nhttps://a.org/b?page=2&utm=1 and utm_source=x\n",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAH!\n",
        "a" * 100,
    ],
)
def test_all_else_stays(text):
    assert cleaned(text) == text


@given(st.text(), st.lists(st.integers(0, 60)))
def test_pieces_make_no_difference(text, cuts):
    text = FRONT[: len(text) * 3] + text
    cuts = [0, *sorted(cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    assert "".join(clean_markdown(pieces)) == cleaned(text)


def test_what_could_be_left_out_is_said():
    text = END_OF_TEXT.join([f"{FRONT}It rains.\n"] * 3)
    assert list(advice(text)) == ["the text has front matter (3×); --clean markdown leaves that out"]
    assert list(advice(cleaned(FRONT) + "It rains. See https://a.org?page=1")) == []
    whatsapp = "".join(f"[12.03.24, 21:04:1{i}] Mia: Hi {i}\n" for i in range(9))
    android = "".join(f"3/12/24, 9:0{i} PM - Ben: Hi {i}\n" for i in range(9))
    for chat in (whatsapp, android):
        assert list(advice(chat)) == ["this looks like a chat; it is learnt as plain text, with its dates and names"]


@pytest.mark.slow
def test_the_advice_works(tmp_path):
    """57 posts, from --inspect without a model to --inspect with what it advised."""
    for i in range(57):
        (tmp_path / f"{i}.md").write_text(f"{FRONT}Post {i}: it rains again, and {i} is no number.\n", encoding="utf-8")
    flags = ["train_llm.py", "--inspect", "--dataset_path", tmp_path]
    before = run_script(*flags, cwd=tmp_path)
    assert before.status == 0, before.stderr
    advised = "tip: the text has front matter (57×); --clean markdown leaves that out (docs/data.md)\n"
    assert advised in before.stderr
    assert "    ---\n    title: Rain" in before.stdout
    after = run_script(*flags, "--clean", "markdown", cwd=tmp_path)
    assert after.status == 0, after.stderr
    assert "tip" not in after.stderr and "Rain" not in after.stdout
    assert "documents   57, of " in after.stdout
    assert read_text(str(tmp_path)).count("title: Rain") == 57  # the files stay as they are
    assert not Path(tmp_path / "model_config.pth").exists()
