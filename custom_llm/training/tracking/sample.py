"""What a model writes while it learns."""

from __future__ import annotations

import shutil
import unicodedata

import torch

from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.base import Tokenizer

WIDEST = 100  # columns of a sample in a line


def write_sample(model: GPTLanguageModel, tokenizer: Tokenizer, n_tokens: int, seed: int) -> str:
    """The beginning of a document, as the model would write it. The randomness of training stays as it is."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    start = torch.tensor([[tokenizer.end_of_text_id]], device=device)
    ids = model.generate(start, n_tokens, temperature=0.8, generator=generator)[0, 1:]
    return tokenizer.decode(ids.tolist()).split(tokenizer.end_of_text)[0].strip("\n")


def in_a_line(text: str, indent: int = 2) -> str:
    """`text` for a line of a terminal: cut to its width, ⏎ for line breaks, nothing that would steer it.

    >>> in_a_line("a\\nb\\x1b[31m")
    'a⏎b [31m'
    """
    room = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns) - indent - 1
    text = "".join(char if char.isprintable() else " " for char in text.replace("\n", "⏎"))
    columns = 0
    for place, char in enumerate(text):
        columns += _columns(char)
        if columns > room:
            return text[:place] + "…"
    return text


def _columns(char: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
