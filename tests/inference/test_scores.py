"""How likely tokens were: against llama.cpp's own logits, and where texts are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_gpt2

from custom_llm.common.errors import UserError
from custom_llm.common.logits import windows
from custom_llm.config.sampling import Sampling
from custom_llm.inference.card import card_of
from custom_llm.inference.engine import Engine
from custom_llm.inference.scores import Score
from custom_llm.inference.text import Piece, StopStrings
from custom_llm.llamacpp import Model, score_windows

CHARACTERS = "abcdefgh.\n,é😀"
BLOCK = 16


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("scores") / "model.gguf", CHARACTERS, block_size=BLOCK)


@pytest.fixture(scope="module")
def engine(path: Path):
    with Engine(path) as engine:
        yield engine


def logprobs_of(path: Path, tokens: list[int]) -> np.ndarray:
    """(len(tokens) - 1,), computed from the logits of windows side by side."""
    parts = list(windows(tokens, BLOCK))
    found = []
    for logits, (_, targets) in zip(score_windows(path, [inputs for inputs, _ in parts]), parts, strict=True):
        shifted = logits.astype(np.float64)
        shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
        found += shifted[np.arange(len(targets)), targets].tolist()
    return np.array(found)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 20))
def test_windows_predict_every_token_but_the_first_once(tokens, size):
    parts = list(windows(tokens, size))
    assert [target for _, targets in parts for target in targets] == tokens[1:]
    assert [token for inputs, _ in parts for token in inputs] == tokens[:-1]
    assert all(0 < len(inputs) == len(targets) <= size for inputs, targets in parts)


def test_a_text_is_scored_in_windows_side_by_side(engine, path):
    tokens = engine.read("abc.\n" * 9).tokens
    scores = list(engine.score(tokens, n_top=3))
    assert [score.token for score in scores] == tokens
    assert scores[0] == Score(tokens[0], b"a", None)
    expected = logprobs_of(path, tokens)
    assert np.allclose(
        [score.logprob for score in scores[1:]], expected, atol=1e-3
    )  # a cache of float16 against one of float32
    for score in scores[1:]:
        found = [logprob for _, logprob in score.top]
        assert len(found) == 3 and found == sorted(found, reverse=True) and found[0] >= score.logprob
        assert sum(map(np.exp, found)) <= 1 + 1e-9
    assert list(engine.score([])) == []


def test_written_tokens_have_the_scores_that_reading_them_gives(engine):
    start = engine.read("abc").tokens
    for n_top in (0, 4):
        pieces = list(engine.stream(start, BLOCK - 4, Sampling(seed=1, temp=1.5), n_top=n_top))
        written = [score for piece in pieces for score in piece.scores]
        assert "".join(piece.text for piece in pieces).encode() == b"".join(score.spelled for score in written)
        read = list(engine.score(start + [score.token for score in written], n_top))[len(start) :]
        assert np.allclose([s.logprob for s in written], [s.logprob for s in read], atol=1e-4)
        assert [len(s.top) for s in written] == [n_top] * len(written)


def test_more_likeliest_tokens_than_there_are(engine):
    (_, second) = engine.score([1, 2], n_top=1000)
    assert len(second.top) == engine.model.n_vocab
    assert sum(np.exp(logprob) for _, logprob in second.top) == pytest.approx(1)


@given(
    st.lists(st.text("ab", max_size=3), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
@settings(deadline=None)
def test_a_cut_text_keeps_the_scores_of_tokens_that_begin_in_it(texts, stops):
    pieces = [Piece(text, (Score(i, text.encode(), 0.0),)) for i, text in enumerate(texts)]
    cut = list(StopStrings(stops).cut(iter(pieces)))
    text, scores = "".join(piece.text for piece in cut), [score.token for piece in cut for score in piece.scores]
    assert "".join(texts).startswith(text)
    for piece in cut:  # whole tokens, but for the last one
        spelled = b"".join(score.spelled for score in piece.scores).decode()
        assert spelled == piece.text or (piece is cut[-1] and spelled.startswith(piece.text))
    begins = np.cumsum([0, *map(len, texts)])[:-1]
    assert scores[: len(texts)] == sorted(scores)
    assert {i for i in range(len(texts)) if begins[i] < len(text)} <= set(scores)
    if len(text) < len("".join(texts)):
        assert all(begins[i] <= len(text) for i in scores)


def test_biases_and_penalties_choose_the_tokens(engine):
    a, b = engine.read("ab").tokens
    (piece, *_) = engine.stream([a], 5, Sampling(temp=0), logit_bias={b: 1000.0})
    assert piece.text == "b"
    text = "".join(p.text for p in engine.stream([a], 30, Sampling(temp=0, presence_penalty=100.0)))
    assert len(set(text[:10])) == 10


def test_what_a_grammar_allows_is_written(engine):
    sampling = Sampling(seed=1, grammar='root ::= "a" [b-d] ("é" | "😀") "."')
    generation = engine.stream(engine.read("fff").tokens, 50, sampling)
    assert next(generation).text == "a"
    assert [piece.text for piece in generation][-1] == "." and generation.finish_reason == "stop"
    texts = {"".join(engine.generate("f", 50, Sampling(seed=i, temp=5, grammar=sampling.grammar))) for i in range(20)}
    assert texts <= {"a" + b + c + "." for b in "bcd" for c in "é😀"} and len(texts) > 2


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('root ::= "Z"', "nothing that the vocabulary can spell"),
        ('x ::= "a"', "has no rule root"),
        ('root ::= root "a"', "begins with itself"),
        ("root ::= foo", "there is no rule foo"),
        ('root ::= "a', "cannot be read"),
        ("\0", "line 1 should have the name of a rule"),
    ],
)
def test_a_bad_grammar_is_explained(engine, capfd, grammar, reason):
    with pytest.raises(UserError, match=reason):
        list(engine.stream([1], 5, Sampling(grammar=grammar)))
    assert capfd.readouterr() == ("", "")


def test_a_card_tells_what_is_in_the_file(path):
    with Model(path) as model:
        card = card_of(model)
    assert (card.name, card.architecture, card.context, card.n_vocab) == ("model.gguf", "gpt2", BLOCK, 14)
    assert card.n_params > 0 and card.description == ""
