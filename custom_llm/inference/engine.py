"""The inference engine: a query in, text out piece by piece, for as many tokens as are asked for.

    with Engine("model.gguf") as engine:
        for piece in engine.generate("ROMEO:", 200):
            print(piece, end="", flush=True)

The loop calls llama.cpp once to decode and once to sample for each token and does little else in Python.
"""

from __future__ import annotations

import codecs
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from custom_llm.errors import UserError
from custom_llm.llamacpp import PENALTY_LAST_N, Context, Model, Sampler

MAX_WINDOW = 4096  # tokens; models trained on more would fill the memory with their cache
MAX_BATCH = 64  # tokens decoded in one call; a small buffer is quicker to set up and stays in the CPU's cache
MAX_SEED = 2**32 - 2  # llama.cpp takes 2**32 - 1 for "choose one"

# A thread pays once its share of the work outweighs waking and joining it, for each token anew.
THREADS_BY_PARAMETERS = ((30_000_000, 1), (100_000_000, 2), (400_000_000, 4))


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the names and defaults are llama.cpp's. seed None: a new one each time."""

    temp: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raise UserError for a setting that is out of range."""
        rules = (
            ("temp", 0 <= self.temp < float("inf"), "a number of at least 0"),
            ("top_k", 0 <= self.top_k < 2**31, "a whole number of at least 0"),
            ("top_p", 0 <= self.top_p <= 1, "a number from 0 to 1"),
            ("min_p", 0 <= self.min_p <= 1, "a number from 0 to 1"),
            ("repeat_penalty", 0 < self.repeat_penalty < float("inf"), "a number greater than 0"),
            ("seed", self.seed is None or 0 <= self.seed <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise UserError(f"{name}: {getattr(self, name)} is not {rule}")


@dataclass
class Statistics:
    """Counts and times of one `generate`."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0  # from the end of reading the query to the last token
    first_text_seconds: float | None = None  # from the call to the first piece of text

    @property
    def tokens_per_second(self) -> float:
        """Speed of writing; the reading of the query is not counted."""
        return self.generated_tokens / self.seconds if self.seconds else 0.0


class Engine:
    """A model and its working memory, ready to continue texts one after another (never two at a time).

    Raises UserError when the file is no model that llama.cpp can read. `statistics` and `seed` tell about the
    latest `generate`.
    """

    def __init__(self, path: str | os.PathLike[str], n_gpu_layers: int = 0, n_threads: int | None = None) -> None:
        """n_gpu_layers: -1 means all. n_threads: None chooses by the size of the model."""
        self.model = Model(path, n_gpu_layers)
        self.n_threads = n_threads or choose_threads(self.model.n_params)
        self.window = min(self.model.block_size, MAX_WINDOW)
        self._context = Context(self.model, self.window, min(self.window, MAX_BATCH), self.n_threads)
        self.statistics = Statistics()
        self.seed: int | None = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model and its working memory."""
        self._context.close()
        self.model.close()

    def split_unknown(self, query: str) -> tuple[str, list[str]]:
        """`query` without the characters that the model's vocabulary does not have, and those characters.

        >>> engine.split_unknown("Straße")  # a model of English
        ('Strae', ['ß'])
        """
        _, known, unknown = self._read(query)
        return known, unknown

    def generate(
        self,
        query: str,
        max_tokens: int,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
    ) -> Iterator[str]:
        """Iterate over the text that continues `query`, in pieces of whole characters, up to `max_tokens` tokens.

        Ends early at the model's end-of-text token (unless `ignore_eos`: then it is never chosen) or before
        the first of the `stop` strings. Characters that the model does not know are left out of the query;
        of a query longer than the window the last part counts; an empty one starts a new document.
        """
        sampling = sampling or Sampling()
        if any(not string for string in stop):
            raise UserError("stop: an empty string would stop at once; give the text to stop at")
        start = perf_counter()
        self.seed = secrets.randbelow(MAX_SEED + 1) if sampling.seed is None else sampling.seed
        tokens = self._read(query)[0] or [self._first_token()]
        self.statistics = Statistics(prompt_tokens=len(tokens))
        ends = self.model.ends_text
        banned = [token for token in range(self.model.n_vocab) if ends(token)] if ignore_eos else []
        settings = {**asdict(sampling), "seed": self.seed, "banned": banned}
        return self._text(tokens, max_tokens, settings, stop, start)

    def _read(self, query: str) -> tuple[list[int], str, list[str]]:
        """Tokens of `query`; the part of it that they spell; the characters that are missing."""
        model = self.model
        query = clean(query)
        tokens = model.tokenize(query)
        if model.spell(tokens) == query.encode():
            return tokens, query, []
        end = model.spell([model.eos]).decode() if model.eos >= 0 else ""
        documents = query.split(end) if end else [query]
        characters = dict.fromkeys("".join(documents))
        unknown = [c for c in characters if c.encode() not in model.spell(model.tokenize(c))]
        table = str.maketrans(dict.fromkeys(unknown))
        known = end.join(document.translate(table) for document in documents)
        return model.tokenize(known), known, unknown

    def _text(
        self, tokens: list[int], max_tokens: int, settings: dict[str, Any], stop: Sequence[str], start: float
    ) -> Iterator[str]:
        """Yield the text up to a stop string, noting how long after `start` the first of it came."""
        with Sampler(self.model, **settings) as sampler:
            sampler.accept(tokens[-PENALTY_LAST_N:])
            for text in _until(stop, self._characters(tokens[-self.window :], max_tokens, sampler)):
                if self.statistics.first_text_seconds is None:
                    self.statistics.first_text_seconds = perf_counter() - start
                yield text

    def _characters(self, history: list[int], max_tokens: int, sampler: Sampler) -> Iterator[str]:
        """Yield the text of sampled tokens as its characters complete; what is left over as U+FFFD."""
        token_bytes = self.model.token_bytes
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in self._tokens(history, max_tokens, sampler):
            text = decoder.decode(token_bytes(token))
            if text:
                yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def _tokens(self, history: list[int], max_tokens: int, sampler: Sampler) -> Iterator[int]:
        """Yield up to `max_tokens` sampled tokens that follow `history` (at most one window of tokens)."""
        if max_tokens < 1:
            return
        context, window, statistics = self._context, self.window, self.statistics
        ends_text = self.model.ends_text
        context.clear()
        context.decode(history)
        if np.isnan(context.logits()).any():
            raise UserError(f"{self.model.path}: the model computes nan; its training diverged, train it again")
        start = perf_counter()
        try:
            while True:
                token = sampler.sample(context)
                if ends_text(token):
                    return
                statistics.generated_tokens += 1
                yield token
                if statistics.generated_tokens == max_tokens:
                    return
                history.append(token)
                if context.n_past < window:
                    context.decode((token,))
                else:
                    # The window is full, and cached keys carry their positions with them: read its last half
                    # again from position 0. One such batch every window / 2 tokens costs little.
                    history = history[-max(1, window // 2) :]
                    context.clear()
                    context.decode(history)
        finally:
            statistics.seconds = perf_counter() - start

    def _first_token(self) -> int:
        """What stands before a text: the end of the one before it, else a new line."""
        if self.model.eos >= 0:
            return self.model.eos
        return (self.model.tokenize("\n") or [0])[0]


def choose_threads(n_params: int) -> int:
    """Threads for a model of `n_params` parameters, at most one for each physical core.

    More is not faster: a model of a million parameters is several times slower on two threads than on one.
    """
    for limit, threads in THREADS_BY_PARAMETERS:
        if n_params < limit:
            return min(threads, _physical_cores())
    return _physical_cores()


def clean(text: str) -> str:
    """`text` as valid Unicode: bytes that a command line could not decode are decoded, or become U+FFFD."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that is no escaped byte
        data = text.encode("utf-8", "surrogatepass")
    return data.decode("utf-8", "replace")


def _physical_cores() -> int:
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)


def _until(stop: Sequence[str], pieces: Iterator[str]) -> Iterator[str]:
    """Pass `pieces` on up to the first of the strings in `stop`, holding back only what could begin one."""
    if not stop:
        yield from pieces
        return
    held = ""
    for piece in pieces:
        held += piece
        found = [position for string in stop if (position := held.find(string)) >= 0]
        if found:
            if min(found):
                yield held[: min(found)]
            return
        safe = len(held) - max(_overlap(held, string) for string in stop)
        if safe:
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of `text` that is a beginning of `string`, but not all of it."""
    return next(n for n in range(min(len(text), len(string) - 1), -1, -1) if text.endswith(string[:n]))
