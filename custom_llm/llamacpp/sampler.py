"""Which token comes next, by llama.cpp's samplers."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np

from custom_llm.config.sampling import PENALTY_LAST_N, SMALLEST_TEMP, Sampling
from custom_llm.llamacpp.bindings import Owned, c
from custom_llm.llamacpp.model import Model

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Sampler(Owned):
    """llama.cpp's own chain of samplers, in its usual order; see there for what each setting means.

    sampling: with a seed; same seed, same choices. Its grammar is for others to heed. logit_bias: token → what is added
    to its logit; -inf bans it.
    """

    _free = staticmethod(c.llama_sampler_free)

    def __init__(self, model: Model, sampling: Sampling, logit_bias: Mapping[int, float] | None = None) -> None:
        self._candidates = np.zeros(model.n_vocab, _CANDIDATE)
        self._penalties: int | None = None
        self.ptr = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        if logit_bias:
            biases = (c.llama_logit_bias * len(logit_bias))(*logit_bias.items())
            self._add(c.llama_sampler_init_logit_bias(model.n_vocab, len(logit_bias), biases))
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
        if self._penalties is not None:
            for token in tokens[-PENALTY_LAST_N:]:
                c.llama_sampler_accept(self._penalties, token)

    def choose(self, logits: np.ndarray) -> int:
        """Choose a token by logits of shape (n_vocab,), of which one is more than -inf."""
        candidates = self._candidates
        candidates["id"] = np.arange(len(candidates))
        candidates["logit"] = logits
        data = candidates.ctypes.data_as(c.llama_token_data_p)
        array = c.llama_token_data_array(data, len(candidates), -1, False)
        c.llama_sampler_apply(self.ptr, ctypes.byref(array))
        token = array.data[array.selected].id
        c.llama_sampler_accept(self.ptr, token)
        return token
