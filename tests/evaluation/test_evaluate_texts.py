"""Repetition, copies of a training text, recommendations and tables, against the simplest code that does the same."""

from __future__ import annotations

import json
import tracemalloc
from difflib import SequenceMatcher

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_llm.evaluation.metrics import memorization
from custom_llm.evaluation.metrics.diversity import diversity, longest_repeat, words
from custom_llm.evaluation.metrics.memorization import RUN, find_copies, judge_copies
from custom_llm.evaluation.metrics.quality import Quality
from custom_llm.evaluation.metrics.quantization import Candidate, Fidelity, compare, median_speeds, recommend
from custom_llm.evaluation.quantized import draw
from custom_llm.evaluation.run import LONGEST_SHOWN, samples_table
from custom_llm.evaluation.tables import Table, as_json, as_markdown, as_text

FEW = st.text("ab", max_size=60)  # of which everything repeats


# Repetition


@given(FEW)
def test_the_longest_repeat_is_the_longest(text):
    found = longest_repeat(text)
    parts = [text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    assert len(found) == max((len(part) for part in set(parts) if parts.count(part) > 1), default=0)
    assert not found or text.find(found) != text.rfind(found)


@given(st.lists(st.text("ab ", max_size=40), max_size=4))
def test_shares_of_n_grams_are_those_of_counting(texts):
    found = diversity(texts)
    for n, share in enumerate(found.distinct, 1):
        grams = [tuple(text.split()[i : i + n]) for text in texts for i in range(len(text.split()) - n + 1)]
        assert share == (len(set(grams)) / len(grams) if grams else 1.0)
    seen = repeated = total = 0
    for text in texts:
        grams = [tuple(text.split()[i : i + 4]) for i in range(len(text.split()) - 3)]
        repeated += sum(gram in grams[:place] for place, gram in enumerate(grams))
        total += len(grams)
    assert found.repeated == pytest.approx(repeated / total if total else seen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Don\'t go," she said — twice!', ["don't", "go", "she", "said", "twice"]),
        ("春眠不觉晓,ok", ["春", "眠", "不", "觉", "晓", "ok"]),
        ("ひらカナ", ["ひ", "ら", "カ", "ナ"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("x=1; e\u0301te\u0301 … -- 🙂", ["x=1", "e\u0301te\u0301"]),
        ("", []),
    ],
)
def test_words_of_many_scripts(text, expected):
    assert words(text) == expected


def test_a_long_text_of_one_character_is_no_trouble():
    assert len(longest_repeat("a" * 3000)) == 2999
    assert diversity(["a " * 3000]).repeated > 0.99


# Copies


def brute_force(text: str, training: str) -> tuple[int, int, int]:
    runs = [text[i : i + RUN] for i in range(len(text) - RUN + 1)]
    match = SequenceMatcher(None, text, training, autojunk=False).find_longest_match()
    return len(runs), sum(run in training for run in runs), match.size if match.size >= RUN else 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_copies_are_those_of_looking_for_each(data):
    """Texts that are put together of parts of the training text, in pieces of any length."""
    training = data.draw(st.text("abß字🙂", min_size=1, max_size=40)) * data.draw(st.integers(1, 9))
    training += data.draw(st.text("ab", max_size=200))
    pieces, left = [], training
    while left:
        cut = data.draw(st.integers(1, len(left)))
        pieces, left = [*pieces, left[:cut]], left[cut:]
    part = st.tuples(st.integers(0, len(training)), st.integers(0, 120)).map(lambda p: training[p[0] : sum(p)])
    texts = data.draw(st.lists(st.lists(part | st.text("abß", max_size=9), max_size=4).map("".join), max_size=3))
    for text, found in zip(texts, find_copies(texts, iter(pieces)), strict=True):
        assert (found.n_runs, found.n_copied, len(found.longest)) == brute_force(text, training)
        assert found.longest in training
        assert found.longest in text


def test_copies_across_the_borders_of_parts_are_found_whole(monkeypatch):
    monkeypatch.setattr(memorization, "PART", 100)
    generator = np.random.default_rng(0)
    training = "".join(generator.choice(list("abcdefgh"), 5000))
    texts = [training[1000:1900], "x" + training[90:160] + "x", training[4900:] + "y", "z" * 200]
    pieces = [training[i : i + 7] for i in range(0, len(training), 7)]
    found = find_copies(texts, pieces)
    assert [item.longest for item in found] == [training[1000:1900], training[90:160], training[4900:], ""]


def test_equal_hashes_are_no_copies(monkeypatch):
    monkeypatch.setattr(memorization, "_hashes", lambda text: np.zeros(max(0, len(text) - RUN + 1), np.uint64))
    training = "the quick brown fox jumps over the lazy dog " * 5
    texts = [training[:80], training[:60].upper() + "x" * 10]
    assert [item.n_copied for item in find_copies(texts, [training])] == [31, 0]


def test_memory_does_not_grow_with_the_training_text():
    piece = "".join(np.random.default_rng(0).choice(list("abcdefgh "), 1 << 16))
    peaks = []
    for n in (40, 80):  # 2.6 and 5.2 million characters
        tracemalloc.start()
        find_copies([piece[:500]], (piece for _ in range(n)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


# What quantization costs


def candidate(name: str, n_bytes: int, bits: float) -> Candidate:
    quality = Quality(1000, 1000, bits * np.log(2) * 1000, 500, 1.0)
    return Candidate(name, n_bytes, Fidelity(quality, 0.1, 0.2, 0.9), 100.0)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([("Q4_0", 3, 1.2), ("Q8_0", 5, 1.009), ("F16", 7, 1.0)], "Take Q8_0: the smallest"),
        ([("Q4_0", 3, 0.99), ("Q8_0", 5, 1.0)], "Take Q4_0: the smallest"),
        ([("Q4_0", 3, 1.02), ("Q8_0", 5, 1.011)], "Take F32: none of the smaller files is within 1%"),
        ([], "Take F32: there is nothing to choose from."),
    ],
)
def test_the_smallest_file_within_a_hundredth_is_recommended(files, expected):
    candidates = [candidate("F32", 10, 1.0), *(candidate(*file) for file in files)]
    best, sentence = recommend(candidates)
    assert sentence.startswith(expected)
    assert sentence.startswith(f"Take {best.quant_type}")
    assert draw(candidates, best).startswith(b"\x89PNG")


def test_divergence_is_that_of_the_definition():
    generator = np.random.default_rng(0)
    p, q = (np.log(generator.dirichlet(np.ones(5), 30)) for _ in range(2))
    ids = generator.integers(5, size=31).tolist()
    found = compare("m", lambda texts: iter([p]), lambda texts: iter([q]), ids, 30, 31)
    kl = [sum(np.exp(a) * (a - b) for a, b in zip(row, other, strict=True)) for row, other in zip(p, q, strict=True)]
    assert found.kl_mean == pytest.approx(np.mean(kl))
    assert found.kl_99 == pytest.approx(np.quantile(kl, 0.99))
    assert found.agreement == np.mean(p.argmax(1) == q.argmax(1))
    assert found.quality.nats == pytest.approx(-sum(q[place, token] for place, token in enumerate(ids[1:])))


def test_runs_for_speed_alternate():
    order = []
    speeds = median_speeds([lambda: order.append("a") or len(order), lambda: order.append("b") or 1.0])
    assert order == list("ab" * 5)
    assert speeds == [5, 1.0]


# Tables


@settings(max_examples=50)
@given(st.text(), st.text(max_size=20))
def test_any_text_leaves_the_tables_whole(example, name):
    table = Table("A title", ["model", "figure"], [[name, "1"]], ["A line."], [("What it wrote", example)])
    page = as_markdown(name, [table])
    row = next(line for line in page.split("\n") if line.endswith("| 1 |"))
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 3
    assert as_text(table).endswith("\n")
    assert not any(char != "\n" and not char.isprintable() for char in as_text(table).partition("What it")[2])


def test_json_has_no_numbers_that_json_does_not_have():
    found = json.loads(as_json({"a": [float("nan"), float("inf"), 1.5], "b": (1, "ß")}))
    assert found == {"a": [None, None, 1.5], "b": [1, "ß"]}


@pytest.mark.parametrize(
    "model,people,expected",
    [
        (0.0, 0.0, "text of its own"),
        (0.84, 0.81, "text of its own"),
        (0.2, 0.0, "memorised a part"),
        (0.9, 0.1, "most"),
    ],
)
def test_the_share_that_is_copied_has_its_sentence(model, people, expected):
    said = judge_copies(model, people)
    assert expected in said and f"{model:.0%} of what it writes" in said and f"{people:.0%} of what people do" in said
    assert judge_copies(None, people) == judge_copies(model, None) == ""


def test_long_copies_are_shown_in_part():
    text = "abc " * 500
    copies = find_copies([text], [text])
    table = samples_table("m", diversity([text]), diversity([text]), [copies, copies])
    assert table.rows[0][-1] == "2,000 characters"
    assert {len(example) for _, example in table.examples} == {LONGEST_SHOWN}
    assert "It writes text of its own: 100% of what it writes" in table.lines[-1]
