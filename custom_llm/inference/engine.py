"""The inference engine: a query in, text out piece by piece, for as many tokens as are asked for.

    with Engine("model.gguf") as engine:
        for piece in engine.generate("ROMEO:", 200):
            print(piece, end="", flush=True)

For each token the loop calls llama.cpp once to decode and once to sample, and does little else in Python.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.common.logits import windows
from custom_llm.common.text import as_read, unix_lines
from custom_llm.config.sampling import MAX_SEED, Sampling
from custom_llm.inference.card import Card, card_of
from custom_llm.inference.generation import Generation, score_of
from custom_llm.inference.scores import Score

if TYPE_CHECKING:
    from typing_extensions import Self

    from custom_llm.inference.grammar import Vocabulary
    from custom_llm.inference.sampler import Sampler  # or llama.cpp's
    from custom_llm.llamacpp import Context, Lora, Model  # or what is like them over PyTorch

MAX_WINDOW = 4096  # tokens; models trained on more would fill the memory with their cache
MAX_BATCH = 64  # tokens decoded in one call; a small buffer is quicker to set up and stays in the CPU's cache
# A thread pays once its share of the work outweighs waking and joining it, for each token anew.
THREADS_BY_PARAMETERS = ((30_000_000, 1), (100_000_000, 2), (400_000_000, 4))


class Query(NamedTuple):
    """A text as the model reads it."""

    tokens: list[int]  # first that which the model expects before each text, if any
    text: str  # the part of it that they spell
    unknown: list[str]  # the characters that the model's vocabulary does not have


class Engine:
    """A model and its working memory, ready to continue texts.

    Raises UserError when the file is no model that llama.cpp can read, or there is no llama.cpp.
    """

    def __init__(
        self, path: str | os.PathLike[str], n_gpu_layers: int = 0, n_threads: int | None = None,
        loras: Sequence[Lora] = (),
    ) -> None:  # fmt: skip
        """n_gpu_layers: -1 means all. n_threads: None chooses by the size of the model. loras: adapters to apply."""
        from custom_llm.llamacpp import Context, Model

        model = Model(path, n_gpu_layers, loras=loras)
        n_threads = n_threads or choose_threads(model.n_params)
        window = min(model.block_size, MAX_WINDOW)
        # The cache is as exact as the weights: what was not rounded computes what PyTorch does.
        reader = Context(model, window, min(window, MAX_BATCH), n_threads, f32_cache=model.is_f32)
        self._set_up(model, reader, n_threads)

    def _set_up(self, model: Model, reader: Context, n_threads: int) -> None:
        self.model, self.reader, self.n_threads = model, reader, n_threads
        self.window = reader.n_ctx
        self._vocabulary: Vocabulary | None = None  # as grammars need it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def card(self) -> Card:
        """What is known of the model."""
        return card_of(self.model)

    def close(self) -> None:
        """Free the model and its working memory."""
        self.reader.close()
        self.model.close()

    def generate(
        self, query: str, max_tokens: int, sampling: Sampling | None = None, stop: Sequence[str] = (),
        ignore_eos: bool = False,
    ) -> Iterator[str]:  # fmt: skip
        """Iterate over the text that continues `query`, in pieces of whole characters, up to `max_tokens` tokens.

        Ends early at the model's end-of-text token (unless `ignore_eos`: then it is never chosen) or before
        the first of the `stop` strings. Characters that the model does not know are left out of the query;
        of a query longer than the window the last part counts; an empty one starts a new document.
        """
        return (piece.text for piece in self.stream(self.read(query).tokens, max_tokens, sampling, stop, ignore_eos))

    def read(self, text: str) -> Query:
        """A text as tokens, read as a training reads it.

        >>> engine.read("Straße").unknown  # a model of English
        ['ß']
        """
        model = self.model
        text = as_read(text)
        tokens = model.tokenize(text)
        if model.spell(tokens) == text.encode():
            return Query(self.begun(tokens), text, [])
        # Control tokens are no characters: at odd places stand theirs, if there are any.
        names = sorted(
            {model.token_bytes(token).decode("utf-8", "replace") for token in tokens if model.is_control(token)},
            key=len,
        )
        parts = re.split(f"({'|'.join(map(re.escape, reversed(names)))})", text) if names else [text]
        characters = dict.fromkeys("".join(parts[::2]))
        unknown = [c for c in characters if c.encode() not in model.spell(model.tokenize(c))]
        table = str.maketrans(dict.fromkeys(unknown))
        known = "".join(part if place % 2 else part.translate(table) for place, part in enumerate(parts))
        return Query(self.begun(model.tokenize(known)), known, unknown)

    def begun(self, tokens: Sequence[int]) -> list[int]:
        """`tokens`, with that before them which the model expects before each text, if any."""
        begin = self.model.begin_of_text
        return [begin, *tokens] if begin >= 0 and tokens[:1] != [begin] else list(tokens)

    def stream(
        self, tokens: Sequence[int], max_tokens: int, sampling: Sampling | None = None, stop: Sequence[str] = (),
        ignore_eos: bool = False, logit_bias: Mapping[int, float] | None = None, n_top: int | None = None,
    ) -> Generation:  # fmt: skip
        """As `generate`, after tokens; several texts may be written by turns.

        logit_bias: token → what is added to its logit. n_top: also tell how likely each token was, and as many of the
        likeliest in its place; before sampling settings count.
        """
        if any(not string for string in stop):
            raise UserError("stop: an empty string would stop at once; give the text to stop at")
        start = perf_counter()
        sampling, stops = sampling or Sampling(), [unix_lines(string) for string in stop]
        if sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbelow(MAX_SEED + 1))
        sampler = self._sampler_for(sampling, ignore_eos, logit_bias or {})
        if not tokens:  # what stands before a text: the end of the one before it, else a new line
            tokens = (
                self.begun([]) or [self.model.eos] if self.model.eos >= 0 else (self.model.tokenize("\n") or [0])[:1]
            )
        return Generation(self.model, self.reader, sampler, sampling.seed, tokens, max_tokens, stops, n_top, start)

    def check(self, sampling: Sampling, ignore_eos: bool = False) -> None:
        """Raise UserError for settings that this model can write nothing with: a grammar that cannot be read."""
        self._sampler_for(replace(sampling, seed=0), ignore_eos, {}).close()

    def score(self, tokens: Sequence[int], n_top: int = 0) -> Iterator[Score]:
        """How likely the model finds each token of a text after those before it, in windows side by side."""
        spell, begin = self.model.token_bytes, self.model.begin_of_text
        if tokens and tokens[0] != begin:  # which is no part of the text
            yield Score(tokens[0], spell(tokens[0]), None)
        for place, (inputs, targets) in enumerate(windows(tokens, self.window)):
            if place and begin >= 0:
                inputs = [begin, *inputs[1:]]
            for logits, target in zip(self.logits(inputs), targets, strict=True):
                yield score_of(target, logits, n_top, spell)

    def logits(self, tokens: Sequence[int]) -> Iterator[np.ndarray]:
        """(n_vocab,) float32 for each token of a window, about what follows it; valid until the next one."""
        reader = self.reader
        reader.clear()
        for start in range(0, len(tokens), reader.n_batch):
            part = tokens[start : start + reader.n_batch]
            reader.decode(part, all_logits=True)
            for place in range(len(part)):
                yield reader.logits(place)

    def _sampler_for(self, sampling: Sampling, ignore_eos: bool, logit_bias: Mapping[int, float]) -> Sampler:
        """What chooses: among the tokens that the grammar allows, if there is one."""
        logit_bias = self._biases(sampling, ignore_eos, logit_bias)
        if sampling.grammar is None:
            return self._sampler(sampling, logit_bias)
        from custom_llm.inference.grammar import Grammar, GrammarSampler, Vocabulary

        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.model)
        grammar = Grammar(sampling.grammar, self._vocabulary)
        return GrammarSampler(self._sampler(sampling, logit_bias), grammar)

    def _sampler(self, sampling: Sampling, logit_bias: Mapping[int, float]) -> Sampler:
        from custom_llm.llamacpp import Sampler

        return Sampler(self.model, sampling, logit_bias)

    def _biases(self, sampling: Sampling, ignore_eos: bool, logit_bias: Mapping[int, float]) -> Mapping[int, float]:
        """`logit_bias`, and the end of a text banned where it is to be ignored."""
        if not ignore_eos:
            return logit_bias
        if sampling.grammar is not None:
            raise UserError(
                "--grammar ends where the text fits it, and --ignore_eos would not let it; give one of them"
            )
        ends = (token for token in range(self.model.n_vocab) if self.model.ends_text(token))
        return {**logit_bias, **dict.fromkeys(ends, -float("inf"))}


def choose_threads(n_params: int) -> int:
    """Threads for a model of `n_params` parameters, at most one for each physical core.

    More is not faster: a model of a million parameters is several times slower on two threads than on one.
    """
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or usable, usable)
    return next((min(threads, cores) for limit, threads in THREADS_BY_PARAMETERS if n_params < limit), cores)
