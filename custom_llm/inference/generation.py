"""A text as a model writes it: token by token, and handed out in pieces of whole characters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.common.logits import log_softmax
from custom_llm.inference.scores import Score
from custom_llm.inference.text import Piece, StopStrings, whole_characters

if TYPE_CHECKING:
    from typing_extensions import Self

    from custom_llm.inference.sampler import Sampler  # or llama.cpp's
    from custom_llm.llamacpp import Context, Model  # or what is like them over PyTorch


@dataclass
class Statistics:
    """Counts and times of one text."""

    prompt_tokens: int = 0
    prompt_read: int = 0  # how many of them the window held
    generated_tokens: int = 0
    tokenize_seconds: float = 0.0  # turning the query into tokens
    prompt_seconds: float = 0.0  # reading them
    seconds: float = 0.0  # from the end of reading the query to the last token
    first_text_seconds: float | None = None  # from the call to the first piece of text

    @property
    def tokens_per_second(self) -> float:
        """Speed of writing; the reading of the query is not counted."""
        return self.generated_tokens / self.seconds if self.seconds else 0.0


class Generation:
    """A text as it is written: an iterator of its pieces, and what is known of it so far.

    `seed` writes the same text again; `statistics` are final once the iterator is exhausted or closed.
    """

    def __init__(
        self, model: Model, reader: Context, sampler: Sampler, seed: int, tokens: Sequence[int], max_tokens: int,
        stop: Sequence[str], n_top: int | None, start: float,
    ) -> None:  # fmt: skip
        """See `Engine.stream`. sampler: closed with the text. tokens: at least one. start: when it was asked for."""
        self.seed, self.statistics = seed, Statistics(prompt_tokens=len(tokens))
        self._model, self._reader, self._sampler, self._start = model, reader, sampler, start
        self._stop = StopStrings(stop)
        self._ended = False  # by the model
        self._begin = [t for t in tokens[:1] if t == model.begin_of_text]  # which stays in front, whatever is forgotten
        self._history = self._latest(list(tokens), reader.n_ctx)  # what counts for the next token
        self._n_cleared = -1  # of the reader, when it read the history
        sampler.accept(tokens)
        self._pieces = self._stop.cut(self._characters(max_tokens, n_top))

    @property
    def finish_reason(self) -> str:
        """Why it ends: "stop", at a stop string or the end of the text; else "length"."""
        return "stop" if self._ended or self._stop.found else "length"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        piece = next(self._pieces)
        if self.statistics.first_text_seconds is None:
            self.statistics.first_text_seconds = perf_counter() - self._start
        return piece

    def close(self) -> None:
        """End the text here."""
        self._pieces.close()
        self._sampler.close()

    def _characters(self, max_tokens: int, n_top: int | None) -> Iterator[Piece]:
        """Yield the text of sampled tokens as its characters complete."""
        spell = self._model.token_bytes
        with closing(self._sampler):
            yield from whole_characters(
                (spell(token), None if n_top is None else score_of(token, self._reader.logits(), n_top, spell))
                for token in self._tokens(max_tokens)
            )

    def _tokens(self, max_tokens: int) -> Iterator[int]:
        """Yield up to `max_tokens` sampled tokens."""
        if max_tokens < 1:
            return
        reader, statistics, ends_text = self._reader, self.statistics, self._model.ends_text
        start = perf_counter()
        self._read_again()
        if np.isnan(reader.logits()).any():
            reason = "its training went wrong; train it again with a smaller --learning_rate"
            if self._model.loras:
                reason = (
                    "an adapter is too strong or damaged; give --lora FILE:SCALE with a smaller scale, or leave it out"
                )
            raise UserError(f"{self._model.path}: the model computes no numbers (nan), because {reason}")
        statistics.prompt_seconds = perf_counter() - start
        statistics.prompt_read = len(self._history)
        start = perf_counter()
        try:
            while True:
                token = reader.sample(self._sampler)
                if ends_text(token):
                    self._ended = True
                    return
                statistics.generated_tokens += 1
                yield token
                if statistics.generated_tokens == max_tokens:
                    return
                self._history.append(token)
                if reader.n_past < reader.n_ctx and reader.n_cleared == self._n_cleared:
                    reader.decode((token,))
                else:
                    self._read_again()
        finally:
            statistics.seconds = perf_counter() - start

    def _latest(self, tokens: list[int], n: int) -> list[int]:
        """The last `n` of them, or fewer."""
        if len(tokens) <= n or n == 1:
            return tokens[-n:]
        return self._begin + tokens[len(self._begin) - n :]

    def _read_again(self) -> None:
        """Let the reader begin anew with this text: it was full, or has read another one."""
        reader = self._reader
        if len(self._history) > reader.n_ctx:
            # Cached keys carry their positions with them, so the last half of the window is read again from position
            # 0. One such batch every window / 2 tokens costs little.
            self._history = self._latest(self._history, max(1, reader.n_ctx // 2))
        reader.clear()
        self._n_cleared = reader.n_cleared
        reader.decode(self._history)


def score_of(token: int, logits: np.ndarray, n_top: int, spell: Callable[[int], bytes]) -> Score:
    """The score of a token that followed where a model computed `logits`, (n_vocab,)."""
    logprobs = log_softmax(logits)
    likeliest: list[int] = []
    if n_top:
        n_top = min(n_top, len(logprobs))
        likeliest = np.argpartition(-logprobs, n_top - 1)[:n_top].tolist()
        likeliest.sort(key=lambda other: (-logprobs[other], other))
    top = tuple((spell(other), float(logprobs[other])) for other in likeliest)
    return Score(token, spell(token), float(logprobs[token]), top)
