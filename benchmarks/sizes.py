"""Which model learns most in given minutes: the measurements behind custom_llm/config/presets.py.

    python -m benchmarks.sizes --minutes 2 4x128x4x128:16:2e-3 6x192x6x128:16:1e-3

Each setting is LAYERSxWIDTHxHEADSxBLOCK:BATCH:LEARNING_RATE, trained on the bundled stories (or --file FILE) by the
clock, one after the other; a row each. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from custom_llm.cli.parser import ArgumentParser
from custom_llm.common.errors import run
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.data.stories.generate import generate_stories
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.char import CharTokenizer
from custom_llm.training.loop import held_out_loss, train_model


class CountingLoader:
    """A loader that counts the tokens it hands out."""

    def __init__(self, loader: WindowLoader) -> None:
        self.loader, self.tokens = loader, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for x, y in self.loader:
            self.tokens += x.numel()
            yield x, y


def measure(setting: str, text: str, minutes: float, dropout: float, show: bool) -> None:
    """Train one setting and print its row."""
    shape, batch_size, learning_rate = setting.split(":")
    n_layer, n_embd, n_head, block_size = map(int, shape.split("x"))
    tokenizer = CharTokenizer.from_text(text)
    data = TextDataset(END_OF_TEXT + text, block_size, tokenizer)
    held_out = data.split_off(0.1)
    torch.manual_seed(0)
    model = GPTLanguageModel(
        dict(vocab_size=tokenizer.vocab_size, n_embd=n_embd, n_head=n_head, n_layer=n_layer, block_size=block_size,
             dropout=dropout)
    )  # fmt: skip
    loader = CountingLoader(WindowLoader(data, int(batch_size), None, seed=1))
    config = dict(learning_rate=float(learning_rate), minutes=minutes)
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train_model(model, loader, config, torch.device("cpu"))
    speed = loader.tokens / (time.monotonic() - start)
    bits = held_out_loss(model, held_out) / math.log(2)
    row = f"{setting:<28}{model.n_parameters() / 1e6:>7.2f}M{speed:>9,.0f} tokens/s"
    print(f"{row}{loader.tokens / len(data.data):>7.1f} epochs{bits:>8.3f} bits per character", flush=True)
    if show:
        ids = model.generate(torch.tensor([[tokenizer.end_of_text_id]]), 700, temperature=0.7)[0, 1:]
        print(tokenizer.decode(ids.tolist()), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--show", action="store_true", help="print a text of each")
    args = parser.parse_args(argv)
    text = args.file.read_text(encoding="utf-8") if args.file else generate_stories()
    for setting in args.settings:
        measure(setting, text, args.minutes, args.dropout, args.show)


if __name__ == "__main__":
    sys.exit(run(main))
