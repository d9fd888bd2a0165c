"""Which token comes next, by llama.cpp's samplers; grammars (GBNF) are checked for what would end the process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.config.sampling import PENALTY_LAST_N, SMALLEST_TEMP, Sampling
from custom_llm.llamacpp.bindings import Owned, c, error_lines
from custom_llm.llamacpp.model import Model

_MAX_NESTING = 500  # of parentheses in a grammar
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Sampler(Owned):
    """llama.cpp's own chain of samplers, in its usual order; see there for what each setting means.

    sampling: with a seed; same seed, same choices. logit_bias: token → what is added to its logit; -inf bans it. Raises
    UserError for a grammar that llama.cpp cannot read.
    """

    _free = staticmethod(c.llama_sampler_free)

    def __init__(self, model: Model, sampling: Sampling, logit_bias: Mapping[int, float] | None = None) -> None:
        self._candidates = np.zeros(model.n_vocab, _CANDIDATE)
        self._penalties: int | None = None
        self.may_fail = sampling.grammar is not None  # in `choose`, with an exception
        self.ptr = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        if logit_bias:
            biases = (c.llama_logit_bias * len(logit_bias))(*logit_bias.items())
            self._add(c.llama_sampler_init_logit_bias(model.n_vocab, len(logit_bias), biases))
        if sampling.grammar is not None:
            try:
                self._add(_grammar_sampler(model, sampling.grammar))
            except UserError:
                self.close()
                raise
        penalties = sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
        if penalties != (1.0, 0.0, 0.0):
            self._penalties = c.llama_sampler_init_penalties(model.n_vocab, PENALTY_LAST_N, *penalties)
            self._add(self._penalties)
        if sampling.temp < SMALLEST_TEMP:
            self._add(c.llama_sampler_init_greedy())
            return
        self._add(c.llama_sampler_init_top_k(sampling.top_k))
        self._add(c.llama_sampler_init_top_p(sampling.top_p, 1))
        self._add(c.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(c.llama_sampler_init_temp(sampling.temp))
        self._add(c.llama_sampler_init_dist(sampling.seed))

    def _add(self, sampler: int) -> None:
        c.llama_sampler_chain_add(self.ptr, sampler)  # the chain owns it from here on

    def accept(self, tokens: Sequence[int]) -> None:
        """Take note of tokens that were read, not sampled: the penalties look back at them too."""
        if self._penalties is not None:  # only them: a grammar is about what is written
            for token in tokens[-PENALTY_LAST_N:]:
                c.llama_sampler_accept(self._penalties, token)

    def choose(self, logits: np.ndarray) -> int:
        """Choose a token by logits of shape (n_vocab,).

        Raises UserError when the grammar allows nothing that the vocabulary can spell.
        """
        candidates = self._candidates
        candidates["id"] = np.arange(len(candidates))
        candidates["logit"] = logits
        data = candidates.ctypes.data_as(c.llama_token_data_p)
        array = c.llama_token_data_array(data, len(candidates), -1, False)
        c.llama_sampler_apply(self.ptr, ctypes.byref(array))
        chosen = array.data[array.selected]
        if chosen.logit == -np.inf:  # to accept it would take the process down
            raise UserError("--grammar: nothing that the vocabulary can spell fits it here; check what it allows")
        token = chosen.id
        c.llama_sampler_accept(self.ptr, token)
        return token


def _grammar_sampler(model: Model, grammar: str) -> int:
    """A sampler, in C, that allows what a grammar does, from its rule `root`.

    Raises UserError when llama.cpp cannot read the grammar, or no text of this model could end in it.
    """
    if model.eos < 0:
        raise UserError("--grammar: this model has no end-of-text token, so what fits could never end")
    error_lines.clear()
    data = grammar.encode("utf-8", "replace")
    if not data.strip():  # llama.cpp would allow everything
        raise UserError("--grammar is empty; see grammars/README.md of llama.cpp for what it may be")
    if b"\0" in data:
        raise UserError("--grammar holds a NUL character; see grammars/README.md of llama.cpp for what it may be")
    nesting = accumulate((byte == ord("(")) - (byte == ord(")")) for byte in data)  # those in texts count, too
    if max(nesting) > _MAX_NESTING:  # its parser calls itself for each, until the stack overflows
        raise UserError(f"--grammar has more than {_MAX_NESTING} parentheses in each other; give them names as rules")
    with _stderr_lines() as lines:
        sampler = c.llama_sampler_init_grammar(model.vocab, data, b"root")
    if not sampler:
        reasons = [*lines, *error_lines]
        reason = reasons[0].removeprefix("parse: error parsing grammar: ") if reasons else "no reason given"
        raise UserError(f"--grammar cannot be read: {reason}; see grammars/README.md of llama.cpp")
    return sampler


@contextlib.contextmanager
def _stderr_lines() -> Iterator[list[str]]:
    """Collect, from here to the end of `with`, what C code prints to stderr."""
    lines: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
