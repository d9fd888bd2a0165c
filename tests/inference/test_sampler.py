"""Our sampler against llama.cpp's chain: the candidates that remain, their probabilities, and what a seed chooses."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from custom_llm.config.sampling import MAX_SEED, Sampling
from custom_llm.inference.sampler import Sampler

llamacpp = pytest.importorskip("custom_llm.llamacpp.sampler")
c = llamacpp.c

SETTINGS = st.builds(
    Sampling,
    temp=st.sampled_from([0.0, 1e-5]) | st.floats(0.05, 5),
    top_k=st.sampled_from([0, 1, 40]) | st.integers(0, 3000),
    top_p=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    min_p=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    repeat_penalty=st.just(1.0) | st.floats(0.5, 2),
    frequency_penalty=st.just(0.0) | st.floats(-2, 2),
    presence_penalty=st.just(0.0) | st.floats(-2, 2),
    seed=st.integers(0, MAX_SEED),
)
SIZES = st.sampled_from([1, 2, 30, 500, 1500])
CASES = given(SETTINGS, SIZES, st.floats(0.3, 12), st.integers(0, 2**32), st.integers(0, 150), st.integers(0, 3))


def make(sampling: Sampling, n_vocab: int, seed: int, n_read: int, n_biased: int):
    """Both samplers after the same tokens, and what makes logits."""
    generator = np.random.default_rng(seed)
    bias = {int(token): float(generator.normal(0, 5)) for token in generator.integers(n_vocab, size=n_biased)}
    ours = Sampler(sampling, bias)
    theirs = llamacpp.Sampler(SimpleNamespace(n_vocab=n_vocab), sampling, bias)
    read = generator.integers(n_vocab, size=n_read).tolist()
    ours.accept(read)
    theirs.accept(read)
    return ours, theirs, generator


def candidates_of(sampler, logits: np.ndarray) -> dict[int, float]:
    """Token → probability, of what llama.cpp's chain leaves."""
    rows = (c.llama_token_data * len(logits))(*((i, logit, 0.0) for i, logit in enumerate(logits.tolist())))
    array = c.llama_token_data_array(rows, len(logits), -1, False)
    c.llama_sampler_apply(sampler.ptr, ctypes.byref(array))
    return {array.data[i].id: array.data[i].p for i in range(array.size)}


@CASES
@settings(max_examples=300, deadline=None)
def test_candidates_and_their_probabilities_are_llama_cpps(sampling, n_vocab, scale, seed, n_read, n_biased):
    ours, theirs, generator = make(sampling, n_vocab, seed, n_read, n_biased)
    with theirs:
        logits = generator.normal(0, scale, n_vocab).astype(np.float32)
        assume(len(np.unique(logits)) == n_vocab)  # of two that are alike either may come first
        before = logits.copy()
        tokens, probabilities = ours.candidates(logits)
        assert np.array_equal(logits, before)
        if sampling.temp < 1e-4:  # its chain only marks the likeliest
            assert tokens.tolist() == [theirs.choose(logits)] and probabilities.tolist() == [1]
            return
        expected = candidates_of(theirs, logits)
        assert tokens.tolist() == list(expected)
        assert np.allclose(probabilities, list(expected.values()), atol=1e-5)


@CASES
@settings(max_examples=200, deadline=None)
def test_a_seed_chooses_the_tokens_that_it_chooses_in_llama_cpp(sampling, n_vocab, scale, seed, n_read, n_biased):
    ours, theirs, generator = make(sampling, n_vocab, seed, n_read, n_biased)
    with theirs:
        for _ in range(10):
            logits = generator.normal(0, scale, n_vocab).astype(np.float32)
            assert ours.choose(logits) == theirs.choose(logits)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    sampler = Sampler(Sampling(temp=1, top_k=0, top_p=1, min_p=0, seed=1))
    drawn = [sampler.choose(np.log(probabilities)) for _ in range(20_000)]
    assert np.bincount(drawn) / len(drawn) == pytest.approx(probabilities, abs=0.02)


def test_a_banned_token_is_not_chosen_and_one_alone_is():
    sampler = Sampler(Sampling(temp=3, seed=1), {0: -np.inf})
    assert {sampler.choose(np.array([9.0, 0.0, 0.1])) for _ in range(200)} == {1, 2}
    assert Sampler(Sampling(seed=1)).choose(np.array([0.5])) == 0


def test_penalties_look_back_at_64_tokens():
    sampler = Sampler(Sampling(temp=0, presence_penalty=5))
    sampler.accept([0] + [2] * 63)
    assert sampler.choose(np.array([1.0, 0.5, 0.0])) == 1  # and one more, so the 0 is forgotten
    assert sampler.choose(np.array([1.0, 0.5, 0.0])) == 0
