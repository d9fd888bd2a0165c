"""What a model has read, and what it expects next."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.llamacpp.adapter import Lora
from custom_llm.llamacpp.bindings import Owned, c, error_lines
from custom_llm.llamacpp.model import Model
from custom_llm.llamacpp.sampler import Sampler

_FLASH_ATTENTION_AUTO, _FLASH_ATTENTION_OFF = -1, 0
_LONGEST_FLASH, _FLASH_WIDTH = 512, 32  # tokens; of heads, a multiple


class Context(Owned):
    """A model's working memory: the cache of what it has read, and the logits of what it read last.

    n_ctx: positions it may hold. n_batch: tokens computed in one go. f32_cache: cache in float32 instead of
    float16, for comparing logits.
    """

    _free = staticmethod(c.llama_free)

    def __init__(self, model: Model, n_ctx: int, n_batch: int, n_threads: int, f32_cache: bool = False) -> None:
        if model.learned_positions and n_ctx > model.n_ctx_train:
            raise ValueError(f"n_ctx {n_ctx} > {model.n_ctx_train} rows in the model's table of positions")
        params = c.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads = params.n_threads_batch = n_threads
        params.no_perf = True
        params.flash_attn_type = _FLASH_ATTENTION_AUTO if _gains_by_flash(model, n_ctx) else _FLASH_ATTENTION_OFF
        if f32_cache:
            params.type_k = params.type_v = c.GGML_TYPE_F32
            params.flash_attn_type = _FLASH_ATTENTION_OFF  # it casts such a cache to float16 on every read
        self.ptr = c.llama_init_from_model(model.ptr, params)
        if not self.ptr:
            raise UserError(f"{model.path}: not enough memory to read {n_ctx} tokens at once; close other programs")
        if model.adapters:
            adapters, scales = zip(*model.adapters, strict=True)
            n = len(adapters)
            c.llama_set_adapters_lora(
                self.ptr, (c.llama_adapter_lora_p_ctypes * n)(*adapters), n, (ctypes.c_float * n)(*scales)
            )
        self.model = model  # also keeps the weights alive as long as the context
        self.n_ctx, self.n_batch = n_ctx, n_batch
        self.n_past = 0  # positions 0 … n_past - 1 are in the cache
        self.n_cleared = 0  # how often everything was forgotten
        self._memory = c.llama_get_memory(self.ptr)
        # Batches live as long as the context: nothing is allocated for each token. Without positions and
        # sequence ids llama.cpp appends to sequence 0; without wishes it keeps the last token's logits.
        self._tokens = (c.llama_token * n_batch)()
        every = (ctypes.c_int8 * n_batch)(*(1,) * n_batch)
        self._batch = c.llama_batch(0, self._tokens, None, None, None, None, None)
        self._batch_all_logits = c.llama_batch(0, self._tokens, None, None, None, None, every)

    def clear(self) -> None:
        """Forget everything that was read."""
        self._check_open()
        c.llama_memory_clear(self._memory, False)
        self.n_past = 0
        self.n_cleared += 1

    def decode(self, tokens: Sequence[int], all_logits: bool = False) -> None:
        """Read `tokens` at positions n_past, n_past + 1, …: after what the cache holds.

        Logits are kept for the last token, or with `all_logits` for each (at most n_batch tokens then).
        """
        self._check_open()
        count = len(tokens)
        if not count or self.n_past + count > self.n_ctx:
            raise ValueError(f"{count} tokens, but {self.n_past} of {self.n_ctx} positions are taken")
        if all_logits and count > self.n_batch:
            raise ValueError(f"logits of {count} tokens, but n_batch is {self.n_batch}")
        batch = self._batch_all_logits if all_logits else self._batch
        for begin in range(0, count, self.n_batch):
            part = tokens[begin : begin + self.n_batch]
            self._tokens[: len(part)] = part
            batch.n_tokens = len(part)
            status = c.llama_decode(self.ptr, batch)
            if status != 0:
                reason = error_lines[-1] if error_lines else "no reason given"
                raise RuntimeError(f"llama_decode returned {status}: {reason}")
            self.n_past += len(part)

    def _check_open(self) -> None:
        if not self.ptr:
            raise ValueError("the context is closed")  # llama.cpp would take the process down

    def logits(self, index: int = -1) -> np.ndarray:
        """(n_vocab,) float32: a view of the logits of batch token `index`, valid until the next `decode`."""
        row = c.llama_get_logits_ith(self.ptr, index)
        return np.ctypeslib.as_array(row, shape=(self.model.n_vocab,))

    def sample(self, sampler: Sampler) -> int:
        """Let `sampler` choose the token that follows the last one decoded."""
        if isinstance(sampler, Sampler):
            return c.llama_sampler_sample(sampler.ptr, self.ptr, -1)  # the same, quicker
        return sampler.choose(self.logits())


def _gains_by_flash(model: Model, n_ctx: int) -> bool:
    """Whether flash attention writes faster than llama.cpp's other one, by what was measured.

    On a CPU it was 5 to 20 % faster in windows of up to 256 tokens, 30 % slower in one of 1,024, and half as fast with
    heads that are 24 wide, for whose odd end it has no instructions.
    """
    if model.on_gpu:
        return True
    width = c.llama_model_n_embd(model.ptr) // max(1, c.llama_model_n_head(model.ptr))
    return n_ctx <= _LONGEST_FLASH and width % _FLASH_WIDTH == 0


def score_windows(
    path: str | os.PathLike[str], windows: Sequence[Sequence[int]], f32_cache: bool = True, loras: Sequence[Lora] = ()
) -> Iterator[np.ndarray]:
    """Yield (len(window), n_vocab) float32 logits for each window of token ids, read from position 0 alone.

    The file is loaded once, with the adapters `loras`. Raises UserError for an unreadable file, ValueError for an empty
    window or one that is longer than the model's positions.
    """
    if not windows:
        return
    longest = max(len(window) for window in windows)
    with (
        Model(path, loras=loras) as model,
        Context(model, longest, longest, n_threads=1, f32_cache=f32_cache) as context,
    ):
        for window in windows:
            context.clear()
            context.decode(window, all_logits=True)
            yield np.stack([context.logits(i) for i in range(len(window))])
