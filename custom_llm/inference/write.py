"""One text from its prompt to its end, shown as it is written and kept with all that is known of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from custom_llm.common.text import as_read, counted
from custom_llm.inference.scores import Score, completion_logprobs, logprob_table
from custom_llm.inference.settings import INTERRUPTED, Settings
from custom_llm.inference.text import Piece

if TYPE_CHECKING:
    from custom_llm.inference.engine import Engine, Query
    from custom_llm.inference.generation import Statistics


@dataclass
class Text:
    """What a model wrote after a prompt."""

    prompt: str  # as it was read, with what the vocabulary does not have
    seed: int
    statistics: Statistics
    text: str = ""  # what follows the prompt
    pieces: list[Piece] = field(default_factory=list)  # of it, if the scores of its tokens were asked for
    finish_reason: str = INTERRUPTED  # or "length", or "stop": at a stop string, or where the model ended it

    @property
    def scores(self) -> list[Score]:
        """Of its tokens."""
        return [score for piece in self.pieces for score in piece.scores]


def write(
    engine: Engine, prompt: str, settings: Settings, show: Callable[[str], None],
    on_read: Callable[[Query], None] = lambda query: None,
) -> Text:  # fmt: skip
    """Let `engine` continue `prompt`, handing each piece of the text to `show`; Ctrl-C ends it.

    on_read: is told before that what the model reads of the prompt. Raises UserError for a setting that cannot be used
    with this model.
    """
    start = perf_counter()
    query = engine.read(prompt)
    tokenize_seconds = perf_counter() - start
    on_read(query)
    generation = engine.stream(
        query.tokens, settings.max_tokens, settings.sampling, settings.stop, settings.ignore_eos, n_top=settings.n_top
    )
    text = Text(as_read(prompt), generation.seed, generation.statistics)
    with closing(generation):  # so that the statistics are final after Ctrl-C, too
        try:
            for piece in generation:
                text.text += piece.text
                if settings.n_top is not None:
                    text.pieces.append(piece)
                show(piece.text)
            text.finish_reason = generation.finish_reason
        except KeyboardInterrupt:
            pass
    text.statistics.tokenize_seconds = tokenize_seconds
    if text.statistics.first_text_seconds is not None:
        text.statistics.first_text_seconds += tokenize_seconds
    return text


MORE = 3  # times as many tokens are advised where a text was cut


def cut_off(texts: Sequence[Text], max_tokens: int) -> str | None:
    """That texts were cut after `max_tokens`, or what each was to have, and what to do; None where none was."""
    n_cut = sum(text.finish_reason == "length" and text.statistics.generated_tokens > 0 for text in texts)
    if not n_cut:
        return None
    more = f"--max_tokens {MORE * max(max_tokens, 1)} lets"
    if len(texts) == 1:
        return f"cut after {counted(texts[0].statistics.generated_tokens, 'token')}; {more} it go on"
    return f"{n_cut:,} of {len(texts):,} texts were cut at their max_tokens; {more} them go on"


def print_text(
    engine: Engine, prompt: str, settings: Settings, in_json: bool, on_read: Callable[[Query], None]
) -> Text:
    """`write` to stdout: the prompt and the text as it comes, or a line of JSON at its end.

    The table of log-probabilities follows on stderr, if it was asked for.
    """
    if in_json:
        text = write(engine, prompt, settings, lambda piece: None, on_read)
        about: dict[str, Any] = {
            "prompt": text.prompt,
            "text": text.text,
            "tokens": text.statistics.generated_tokens,
            "finish_reason": text.finish_reason,
            "seed": text.seed,
            "tokens_per_second": round(text.statistics.tokens_per_second, 1),
        }
        if settings.n_top is not None:
            about["logprobs"] = completion_logprobs(text.pieces)
        print(json.dumps(about, ensure_ascii=False), flush=True)
        return text

    def begin(query: Query) -> None:
        on_read(query)
        print(as_read(prompt), end="", flush=True)

    try:
        text = write(engine, prompt, settings, lambda piece: print(piece, end="", flush=True), begin)
    finally:
        print(flush=True)
    if settings.n_top is not None:
        print(*logprob_table(text.scores), sep="\n", file=sys.stderr, flush=True)
    return text
