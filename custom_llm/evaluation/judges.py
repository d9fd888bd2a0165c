"""Who grades texts: a model behind an OpenAI-compatible address, or one in a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.config.sampling import Sampling
from custom_llm.evaluation.metrics.grades import GRAMMAR, NoAnswer
from custom_llm.inference.engine import Engine

Ask = Callable[[str], str]
ANSWER_TOKENS = 200
ANSWER_CHARACTERS = '{"grammar": 1234567890, "creativity", "consistency", "age": "ABCDEF"}'


def open_judge(judge: str, model: str | None, key: str | None, seconds: float, threads: int | None) -> Ask:
    """What sends a prompt to the judge and returns its answer, or raises `NoAnswer`.

    Args:
        judge: an address or a file.
        model, key, seconds: see `evaluation.judge_api.Judge`.

    Raises:
        UserError: there is no such judge, or it cannot write grades.
    """
    if "://" in judge:
        from custom_llm.evaluation.judge_api import Judge

        return Judge(judge, model, key, seconds).ask
    try:
        exists = judge != "" and Path(judge).exists()  # Path("") is the folder
    except ValueError:  # a NUL in the name
        exists = False
    if not exists:
        raise UserError(f"--judge {judge}: no such file, and no address such as http://127.0.0.1:8000/v1")
    return ask_file(judge, threads)


def ask_file(path: str, threads: int | None = None) -> Ask:
    """The same of a GGUF file, whose answers follow a grammar."""
    engine = Engine(path, n_threads=threads)
    if unknown := engine.read(ANSWER_CHARACTERS).unknown:
        engine.close()
        raise UserError(
            f"--judge {path} cannot write grades, since its vocabulary has no {unknown[0]!r}; give a larger model"
        )
    sampling = Sampling(temp=0, grammar=GRAMMAR)

    def ask(prompt: str) -> str:
        tokens = engine.read(prompt).tokens
        if len(tokens) + ANSWER_TOKENS > engine.window:
            raise NoAnswer(f"a prompt of {len(tokens):,} tokens, and {path} reads {engine.window:,} with its answer")
        return "".join(piece.text for piece in engine.stream(tokens, ANSWER_TOKENS, sampling))

    return ask
