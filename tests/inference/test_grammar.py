"""Grammars: what they allow is what llama.cpp allows, and none takes the machine."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from vocabularies import in_llama_cpp

from custom_llm.common.errors import UserError
from custom_llm.inference.grammar import Grammar, Vocabulary
from custom_llm.tokenizer.bpe import BPETokenizer

llamacpp = pytest.importorskip("custom_llm.llamacpp.sampler")
c = llamacpp.c


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    """A vocabulary with tokens of several characters, and of parts of one, in llama.cpp."""
    text = "abab bcbc abcabc cab\n" * 5 + "é中éa中b" * 9 + "<|user|>"
    tokenizer = BPETokenizer.train([text], 290)
    with in_llama_cpp(tokenizer, tmp_path_factory.mktemp("vocabulary")) as model:
        yield model


@pytest.fixture(scope="module")
def vocabulary(model) -> Vocabulary:
    return Vocabulary(model)


def llama_cpp_allows(model, sampler: int) -> np.ndarray:
    rows = (c.llama_token_data * model.n_vocab)(*((i, 0.0, 0.0) for i in range(model.n_vocab)))
    array = c.llama_token_data_array(rows, model.n_vocab, -1, False)
    c.llama_sampler_apply(sampler, ctypes.byref(array))
    return np.array([rows[i].logit == 0 for i in range(model.n_vocab)])


TERMINALS = ['"a"', '"ab"', '"é"', "[a-b]", "[^ab]", ".", '"中b"', "[é-中]", '"\\n"', '"\\x61"']
ITEMS = st.sampled_from(TERMINALS) | st.sampled_from(["one", "two"])
ITEMS |= st.lists(ITEMS, min_size=1, max_size=2).map(lambda items: f"({' | '.join(items)})")
REPEATED = st.builds(str.__add__, ITEMS, st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,3}", "{0,1}", "{2,}"]))
SEQUENCES = st.lists(REPEATED, max_size=3).map(lambda items: " ".join(items) or '""')
RULES = st.lists(SEQUENCES, min_size=1, max_size=3).map(" | ".join)


@given(RULES, RULES, RULES, st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_the_tokens_that_llama_cpp_allows_are_allowed(model, vocabulary, root, one, two, random):
    text = f"root ::= {root}\none ::= {one}  # a comment\ntwo ::= {two}\n"
    try:
        ours = Grammar(text, vocabulary)
    except UserError as error:
        assert "left recursion" in str(error), text
        assume(False)
    whole = [i for i, token in enumerate(vocabulary.spelled) if token.decode(errors="replace").encode() == token]
    theirs = c.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
    assume(theirs)  # it takes more for left recursion
    try:
        for _ in range(8):
            allowed = ours.allowed()
            expected = llama_cpp_allows(model, theirs)
            # Of bytes it allows some that begin no character, and refuses some of a character that [^ab] allows.
            assert allowed[whole].tolist() == expected[whole].tolist(), text
            goes_on = [token for token in whole if allowed[token] and token not in vocabulary.ends]
            if not goes_on:
                break
            token = random.choice(goes_on)
            ours.accept(token)
            c.llama_sampler_accept(theirs, token)
    finally:
        c.llama_sampler_free(theirs)


def test_a_character_in_bytes_is_allowed_byte_by_byte(vocabulary):
    for text in ("[x-中]", '[^a] "b"'):
        ours = Grammar(f"root ::= {text}", vocabulary)
        for byte in "中".encode():
            assert ours.allowed()[vocabulary.spelled.index(bytes([byte]))]
            assert not ours.allowed()[vocabulary.ends].any() and not ours.allowed()[vocabulary.spelled.index(b"\xff")]
            ours.accept(vocabulary.spelled.index(bytes([byte])))
        assert ours.allowed().any()
    ours = Grammar("root ::= [x-中]", vocabulary)
    assert not ours.allowed()[vocabulary.spelled.index("龍".encode()[:1])]


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('root ::= "a"{5,2}', "in {5,2} the second number is smaller than the first"),
        ('root ::= "a"{9999999}', "has more than 100,000 symbols"),
        ('root ::= "a"{0,9999999}', "has more than 100,000 symbols"),
        ('root ::= "a"{99}{99}{99}', "has more than 100,000 symbols"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "too many parentheses in each other"),
        ('root ::= a root "x" | "b"\na ::= "c"?', "the rule root begins with itself"),
        ('root ::= ("a"?)*', "what may be nothing is repeated"),
        ('root ::= "a', "line 1 should have more"),
        ('root ::= "a"\n  x', "line 2 should have ::= at its end"),
        ('root ::= "\\q"', "a known escape, which"),
        ("root ::= <nothing>", "one token, which"),
    ],
)
def test_what_would_take_the_machine_or_means_nothing_is_explained_at_once(vocabulary, grammar, message):
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"^--grammar") as caught:
        Grammar(grammar, vocabulary)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert time.perf_counter() - start < 2


DOUBLING = "\n".join(f'r{i} ::= r{i + 1} "a" | r{i + 1} "b" | r{i + 1}' for i in range(30)) + '\nr30 ::= "c"\n'


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= r0\n" + DOUBLING,
        'root ::= "a"?{200}{9}',
        'root ::= s\ns ::= "a" s s | "a" s | "a"',
        'root ::= "a"* "a"* "a"* "a"* "a"* "a"* "b"',
        "root ::= .{0,2000} .{0,2000} .{0,2000}",
        "root ::= " + "(" * 150 + '"a"' + "?)" * 150,
    ],
    ids=["doubling", "optional", "ambiguous", "stars", "long", "nested"],
)
def test_what_fits_in_very_many_ways_is_followed_or_refused_soon(vocabulary, grammar):
    start = time.perf_counter()
    ours = Grammar(grammar, vocabulary)
    try:
        for _ in range(30):
            allowed = np.flatnonzero(ours.allowed())
            assert len(allowed)
            if allowed[0] in vocabulary.ends:
                break
            ours.accept(allowed[0])
            assert time.perf_counter() - start < 10
    except UserError as error:
        assert "so many ways" in str(error)


def test_tokens_can_be_named(model, vocabulary):
    (end,), (a,) = model.tokenize("<|endoftext|>"), model.tokenize("a")
    ours = Grammar(f'root ::= <[{a}]> !<[{a}]> "b"', vocabulary)
    assert np.flatnonzero(ours.allowed()).tolist() == [a]
    ours.accept(a)
    allowed = ours.allowed()
    assert not allowed[[a, end]].any() and allowed.sum() == model.n_vocab - 2
    ours.accept(vocabulary.spelled.index(b"\xff"))  # which is no text
    (b,) = model.tokenize("b")
    assert np.flatnonzero(ours.allowed()).tolist() == [b]
    ours.accept(b)
    assert np.flatnonzero(ours.allowed()).tolist() == [end]
