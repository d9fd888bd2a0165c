"""How many tokens a vocabulary should have: bits per byte of held-out text after the same minutes of training.

    OMP_NUM_THREADS=1 python -m benchmarks.vocabulary input.txt --minutes 3
    OMP_NUM_THREADS=1 python -m benchmarks.vocabulary input.txt --minutes 3 --max_chars 100000 --dropout 0.1

The same model learns the text as characters and as byte pairs of several vocabularies, one after the other, and is
measured at its lowest held-out loss.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import run
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.data.sources import Corpus, open_corpus
from custom_llm.data.token_file import open_tokens
from custom_llm.model import GPTLanguageModel
from custom_llm.tokenizer.load import find_recipe
from custom_llm.training.loop import held_out_loss, train_model

SHAPE = dict(n_embd=128, n_head=4, n_layer=4, block_size=128)
BATCH_SIZE, LEARNING_RATE, HELD_OUT = 16, 0.0005, 0.1


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row of the table for each vocabulary."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("file", metavar="FILE", help="the text")
    parser.add_argument("--minutes", type=number(float, 0.01), default=3.0, help="for each (default: 3)")
    parser.add_argument("--max_chars", type=number(int, 1000), help="of the text (default: all)")
    parser.add_argument("--dropout", type=number(float, 0, 0.9), default=0.0, help="default: 0")
    parser.add_argument("--vocabularies", default="char,512,1024,4096", help="default: char,512,1024,4096")
    args = parser.parse_args(argv)
    corpus = open_corpus(args.file, max_chars=args.max_chars)
    for vocabulary in args.vocabularies.split(","):
        print(measure(corpus, vocabulary, args.minutes, args.dropout), flush=True)


def measure(corpus: Corpus, vocabulary: str, minutes: float, dropout: float) -> str:
    """The row of one vocabulary: `char`, or a number of byte pairs."""
    name, size = ("char", 0) if vocabulary == "char" else ("bpe", int(vocabulary))
    with tempfile.TemporaryDirectory() as cache:
        tokens = open_tokens(corpus, find_recipe(name, size), Path(cache))
        data = TextDataset.of_tokens(tokens, SHAPE["block_size"])
        held_out = data.split_off(HELD_OUT)
        n_bytes = len(tokens.tokenizer.decode(held_out.tolist()).encode())
        torch.manual_seed(0)
        model = GPTLanguageModel(dict(SHAPE, vocab_size=tokens.tokenizer.vocab_size, dropout=dropout))
        losses: list[float] = []
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            train_model(
                model, WindowLoader(data, BATCH_SIZE, None, seed=1), dict(learning_rate=LEARNING_RATE, minutes=minutes),
                torch.device("cpu"),
                lambda model: held_out_loss(model, held_out), losses.append,
            )  # fmt: skip
    bits = min(losses) * (len(held_out) - 1) / n_bytes / math.log(2)
    return f"{vocabulary:>6}  {model.n_parameters() / 1e6:5.2f} M parameters  {bits:.3f} bits per byte"


if __name__ == "__main__":
    sys.exit(run(main))
