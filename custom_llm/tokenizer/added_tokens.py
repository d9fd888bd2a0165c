"""Tokens that are read as a whole before a text is cut into pieces, such as `<|endoftext|>` or a run of spaces.

`tokenizers` takes the leftmost of them, and of these the longest; llama.cpp looks for the longest in the whole text,
then for the next. Here is decided which sets of tokens both read alike, and where a long text may still be cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.cut import CUT

# What llama.cpp takes for a control token by its text alone, whatever a file says (llama-vocab.cpp, load).
TAKEN_FOR_CONTROL = frozenset(
    """
    <|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> <EOT> _<EOT> [EOT] <｜end▁of▁sentence｜>
    <end_of_utterance> <|eom_id|> <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|>
    <|prefix|> <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>
    <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|> <|fim_pad|> <fim-pad>
    <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|> <|return|> <|call|>
    <|flush|> <|calls|> </s> [EOS] <eos> <turn|> <|tool_response> [e~[ <|channel|> <|message|> <|start|> <|constrain|>
    """.split()
)


@dataclass(frozen=True)
class Added:
    """A token that is read before the text is cut. special: it means something and is no text (CONTROL in GGUF)."""

    content: str
    special: bool


def read_added(entries: Iterable[dict[str, Any]]) -> dict[int, Added]:
    """Id → token of the `added_tokens` of a tokenizer.json.

    ValueError where llama.cpp would read one of them otherwise, or a long text cannot be cut between them.
    """
    added: dict[int, Added] = {}
    contents: list[str] = []
    for entry in entries:
        content = entry["content"]
        for flag in ("lstrip", "rstrip", "single_word"):
            if entry.get(flag):
                raise ValueError(f"its added token {content!r} has {flag}, which llama.cpp does not know")
        if not isinstance(content, str) or not content or content in contents:
            raise ValueError(f"its added token {content!r} is empty, or there twice")
        if type(entry["id"]) is not int or entry["id"] in added:
            raise ValueError(f"its added token {content!r} has no id of its own")
        added[entry["id"]] = Added(content, bool(entry["special"]))
        contents.append(content)
    for content in contents:
        if _may_be_cut(content):
            raise ValueError(f"its added token {content!r} has white space inside, where long texts are cut")
    _check_overlaps(contents)
    return added


def _may_be_cut(token: str) -> bool:
    """Whether some text with this token in it has a CUT inside of the token."""
    for before in ("x", " ", "\n", *(END_OF_TEXT[:i] for i in range(1, len(END_OF_TEXT)))):
        for behind in ("", "x", " ", " x", "\n"):
            start, end = len(before), len(before) + len(token)
            if any(start < cut.start() < end for cut in CUT.finditer(before + token + behind)):
                return True
    return False


def _check_overlaps(tokens: list[str]) -> None:
    """Raise ValueError where a text of two overlapping tokens is read in two ways."""
    heads: dict[str, list[str]] = {}
    for token in tokens:
        heads.setdefault(token[0], []).append(token)
    leftmost = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))
    pairs = (
        (first, second, first[start:])
        for first in tokens
        for start in range(1, len(first))
        for second in heads.get(first[start], ())
        if second != first and len(second) > len(first) - start and second.startswith(first[start:])
    )
    for first, second, shared in pairs:
        text = first + second[len(shared) :]
        found = [match.group() for match in leftmost.finditer(text)]
        # Which of two tokens of one length llama.cpp looks for first is not defined.
        if _size(first) == _size(second) or found != _longest_first(text, tokens):
            raise ValueError(f"its added tokens {first!r} and {second!r} overlap; llama.cpp reads {text!r} otherwise")


def _longest_first(text: str, tokens: list[str]) -> list[str]:
    """The tokens that llama.cpp finds in a text."""
    parts = [text]  # between any two a token that was found, as re.split gives them
    for token in sorted(tokens, key=_size, reverse=True):
        cut = re.compile(f"({re.escape(token)})")
        parts = [piece for i, part in enumerate(parts) for piece in ([part] if i % 2 else cut.split(part))]
    return parts[1::2]


def _size(token: str) -> int:
    return len(token.encode("utf-8", "surrogatepass"))
