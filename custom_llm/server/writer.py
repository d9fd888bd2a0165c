"""What the engine does for a request."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import NamedTuple

from custom_llm.config.sampling import MAX_SEED, PENALTY_LAST_N, Sampling
from custom_llm.inference.engine import Engine, Query
from custom_llm.inference.scores import Score
from custom_llm.inference.text import Piece, whole_characters
from custom_llm.server.http.errors import refused
from custom_llm.server.metrics import Metrics


@dataclass(frozen=True)
class Task:
    """What a request asks the engine for."""

    prompts: Sequence[str | list[int]]  # texts, or ids of tokens
    n: int  # texts for each prompt; with a seed, each has its own, the next number
    max_tokens: int | None  # for each text; None: as many as a request may have
    sampling: Sampling
    stop: Sequence[str]
    ignore_eos: bool
    logit_bias: Mapping[int, float] | None
    n_top: int | None  # tell how likely each token was and so many of the likeliest; None: do not
    echo: bool  # begin each text with its prompt


class Read(NamedTuple):
    """The prompts were read: how many tokens they are, and what of them the vocabulary does not have."""

    prompt_tokens: int
    unknown: list[str]


class Part(NamedTuple):
    """A piece of a text."""

    index: int  # which text
    text: str
    scores: tuple[Score, ...] = ()
    finish_reason: str | None = None  # with the last part: why it ended
    generated: int = 0  # and after how many tokens


Parts = Generator[Read | Part, None, None]


class Writer:
    """Carries out tasks with an engine, one text after another."""

    def __init__(self, engine: Engine, metrics: Metrics, max_tokens: int) -> None:
        """max_tokens: that a task may have written or scored."""
        self.engine, self.metrics, self.max_tokens = engine, metrics, max_tokens

    def texts(self, task: Task) -> Iterator[Parts]:
        """The texts of a task, each as its parts; the first begins with what was read.

        Between two parts of one, others may be computed.
        Raises ApiError when the task asks for too much, or for tokens that the vocabulary does not have.
        """
        self._check_ids(task.logit_bias or {}, "logit_bias")
        queries = [self._read(prompt) for prompt in task.prompts]
        task = self._with_length(task, queries)
        unknown = list(dict.fromkeys(character for query in queries for character in query.unknown))
        read = Read(sum(len(query.tokens) for query in queries), unknown)
        if not task.echo:  # what does not count is not kept while others have their turn
            memory = max(self.engine.window, PENALTY_LAST_N)  # tokens that can have an influence on those behind them
            queries = [Query(self._latest(query.tokens, memory), "", []) for query in queries]
        for index, (query, number) in enumerate(product(queries, range(task.n))):
            sampling = task.sampling
            if sampling.seed is not None:
                sampling = replace(sampling, seed=(sampling.seed + number) % (MAX_SEED + 1))
            yield self._text(task, query, sampling, index, [] if index else [read])

    def _text(self, task: Task, query: Query, sampling: Sampling, index: int, first: list[Read]) -> Parts:
        yield from first
        generated, finish_reason = 0, "length"
        try:
            if task.echo:
                for text, scores in self._echo(query, task.n_top):
                    yield Part(index, text, scores)
            if task.max_tokens:
                pieces = self.engine.stream(
                    query.tokens, task.max_tokens, sampling, task.stop, task.ignore_eos, task.logit_bias, task.n_top
                )
                try:
                    with closing(pieces):
                        for text, scores in pieces:
                            yield Part(index, text, scores)
                finally:
                    generated, finish_reason = pieces.statistics.generated_tokens, pieces.finish_reason
            yield Part(index, "", (), finish_reason, generated)
        finally:
            self.metrics.prompt_tokens.inc(len(query.tokens))
            self.metrics.generated_tokens.inc(generated)

    def _echo(self, query: Query, n_top: int | None) -> Iterator[Piece]:
        """The prompt, token by token if they are to be scored."""
        if n_top is None:
            yield Piece(query.text)
            return
        yield from whole_characters((score.spelled, score) for score in self._scores(query, n_top))

    def _scores(self, query: Query, n_top: int) -> Iterator[Score]:
        """Those of a window are computed at once: within one, the engine may compute nothing else."""
        scores = self.engine.score(query.tokens, n_top)
        size = 1  # the first token has nothing before it, and is in no window
        while part := list(islice(scores, size)):
            yield from part
            size = self.engine.window

    def _latest(self, tokens: list[int], n: int) -> list[int]:
        """The last `n` of the tokens of a prompt, and before them that which begins a text, if it does."""
        if len(tokens) <= n or tokens[0] != self.engine.model.begin_of_text:
            return tokens[-n:]
        return self.engine.begun(tokens[1 - n :])

    def _read(self, prompt: str | list[int]) -> Query:
        if isinstance(prompt, str):
            return self.engine.read(prompt)
        self._check_ids(prompt, "prompt")
        return Query(prompt, self.engine.model.spell(prompt).decode("utf-8", "replace"), [])

    def _check_ids(self, ids: Sequence[int] | Mapping[int, float], param: str) -> None:
        n_vocab = self.engine.model.n_vocab
        if any(token >= n_vocab for token in ids):
            raise refused(param, f"has a token that is not in the vocabulary; there are 0 to {n_vocab - 1}")

    def _with_length(self, task: Task, queries: list[Query]) -> Task:
        n_texts, n_scored = task.n * len(queries), 0
        if task.echo and task.n_top is not None:
            n_scored = task.n * sum(len(query.tokens) for query in queries)
        room = max(0, self.max_tokens - n_scored) // n_texts
        max_tokens = room if task.max_tokens is None else task.max_tokens
        n_tokens = max_tokens * n_texts + n_scored
        if n_tokens > self.max_tokens:
            scored = " and prompts that are scored" if task.echo else ""
            there_are = f"over all texts{scored} it would be {n_tokens:,} tokens"
            at_most = f"this server computes {self.max_tokens:,} for one request (--max_tokens); -1: as many as that"
            raise refused("max_tokens", f"is too large: {there_are}, and {at_most}")
        return replace(task, max_tokens=max_tokens)
