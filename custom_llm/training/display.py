"""What is shown of a training while it is under way: its progress, and what the model writes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

import numpy as np
import psutil
import torch

from custom_llm.common.text import columns
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.base import Tokenizer
from custom_llm.training.clock import Clock

WIDEST = 100  # columns of a sample in a line
PICTURED = 300  # tokens of the text that are shown one by one
BYTES_OF_A_CHARACTER = 4  # at most
FEW_DOCUMENTS = 20  # beginnings from which a model does not learn how a text begins
LOOKED_AT, LOOKED_AT_AS_TEXT = 1 << 20, 1 << 16  # tokens, to see how a text is divided
# Part of the name of a GPU → operations a second with dense bfloat16 that its maker states; the first one that fits.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "GH200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12,
    "A100": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12,
    "RTX 5090": 209.5e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12,
}  # fmt: skip


def progress_words(
    loss: float, held_out: float | None, clock: Clock, memory: int, operations: float, peak: float | None
) -> str:
    """A few words for the line of progress.

    loss, held_out: the latest ones, in nats per token; memory: bytes in use; operations: floating-point ones that
    training does for a token; peak: those that the device could do in a second at most.
    """
    speed = clock.tokens / max(clock.seconds, 1e-9)  # some clocks stand still for 16 ms
    line = f"loss {loss:.3f}"
    line += "" if held_out is None else f", held-out {held_out:.3f}"
    line += f", {speed:,.0f} tokens/s, {memory / 1e9:.1f} GB"
    # Model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
    return line + (f", MFU {speed * operations / peak:.0%}" if peak else "")


def memory_in_use(device: torch.device) -> int:
    """Bytes: the most that was held on a GPU so far, or what this process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return psutil.Process().memory_info().rss


def peak_of(device: torch.device, precision: str) -> float | None:
    """Operations a second that a GPU does at most in bfloat16; None for others, and where that is not known."""
    if device.type != "cuda" or precision != "bfloat16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def write_sample(
    model: GPTLanguageModel, tokenizer: Tokenizer, n_tokens: int, seed: int, beginning: Sequence[int] | None = None
) -> str:
    """A text as the model would write it behind `beginning` (default: the end of the document before).

    A document that ends before it has begun is passed over: that a window begins with such an end is rarely seen.
    The randomness of training stays as it is.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    between = tokenizer.encode(tokenizer.separator).tolist()
    start = torch.tensor([beginning or between], device=device)
    ids = model.generate(start, n_tokens, temperature=0.8, generator=generator)[0, start.shape[1] :]
    documents = re.split(
        f"{re.escape(tokenizer.separator)}|{re.escape(tokenizer.end_of_text)}", tokenizer.decode(ids.tolist())
    )
    return next((document.strip("\n") for document in documents if document.strip()), "")


def beginning_of(ids: np.ndarray, tokenizer: Tokenizer) -> list[int]:
    """The tokens behind which a text begins, in a text of these ids.

    What follows the end of a document is learnt where there are many of them. One long document has a single beginning,
    and behind its end a model goes on in the middle of a sentence; there, paragraphs or lines are what begins.
    """
    looked_at = ids[:LOOKED_AT]
    if np.count_nonzero(looked_at == tokenizer.end_of_text_id) < FEW_DOCUMENTS:
        text = tokenizer.decode(looked_at[:LOOKED_AT_AS_TEXT].tolist())
        for between in ("\n\n", "\n"):
            if text.count(between) >= FEW_DOCUMENTS:
                return tokenizer.encode(between).tolist()
    return tokenizer.encode(tokenizer.separator).tolist()


def pieces_of(ids: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """The beginning of a text, token by token; tokens that hold parts of one character are one piece."""
    pieces: list[str] = []
    begun: list[int] = []
    for token in ids[:PICTURED].tolist():
        begun.append(token)
        piece = tokenizer.decode(begun)
        if "\ufffd" not in piece or len(begun) == BYTES_OF_A_CHARACTER:
            pieces.append(piece)
            begun = []
    return pieces


def in_a_line(text: str, indent: int = 2) -> str:
    """`text` for a line of a terminal: cut to its width, ⏎ for line breaks, nothing that would steer it.

    >>> in_a_line("a\\nb\\x1b[31m")
    'a⏎b [31m'
    """
    room = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns) - indent - 1
    text = "".join(char if char.isprintable() else " " for char in text.replace("\n", "⏎"))
    width = 0
    for place, char in enumerate(text):
        width += columns(char)
        if width > room:
            return text[:place] + "…"
    return text
