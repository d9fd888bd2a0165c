"""Grammars (GBNF), checked for what would end the process."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import accumulate

from custom_llm.common.errors import UserError
from custom_llm.llamacpp.bindings import c, error_lines
from custom_llm.llamacpp.model import Model

_MAX_NESTING = 500  # of parentheses in a grammar


def grammar_sampler(model: Model, grammar: str) -> int:
    """A sampler, in C, that allows what a grammar does, from its rule `root`.

    Raises:
        UserError: llama.cpp cannot read the grammar, or no text of this model could end in it.
    """
    if model.eos < 0:
        raise UserError("--grammar: this model has no end-of-text token, so what fits could never end")
    error_lines.clear()
    data = grammar.encode("utf-8", "replace")
    if not data.strip():  # llama.cpp would allow everything
        raise UserError("--grammar is empty; see grammars/README.md of llama.cpp for what it may be")
    if b"\0" in data:
        raise UserError("--grammar holds a NUL character; see grammars/README.md of llama.cpp for what it may be")
    if _nesting(data) > _MAX_NESTING:  # its parser calls itself for each, until the stack overflows
        raise UserError(f"--grammar has more than {_MAX_NESTING} parentheses in each other; give them names as rules")
    with _stderr_lines() as lines:
        sampler = c.llama_sampler_init_grammar(model.vocab, data, b"root")
    if not sampler:
        reasons = [*lines, *error_lines]
        reason = reasons[0].removeprefix("parse: error parsing grammar: ") if reasons else "no reason given"
        raise UserError(f"--grammar cannot be read: {reason}; see grammars/README.md of llama.cpp")
    return sampler


def _nesting(grammar: bytes) -> int:
    """How many parentheses are open at once, at most; those in texts count, too."""
    depths = accumulate((byte == ord("(")) - (byte == ord(")")) for byte in grammar)
    return max(depths, default=0)


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
