"""Encoding a text and reading it in training: how fast, and in how much memory, whatever the text's size.

    python -m benchmarks.data --megabytes 20,2000

A text of words by Zipf's law is written to a temporary folder, encoded, and read in batches, each in a process of its
own whose peak memory is asked of the system. The rivals, on the first text: the loop over a dict that tutorials encode
characters with, and `encode_batch_fast` of Hugging Face's `tokenizers` with the merges that were learnt.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import run
from custom_llm.common.machine import peak_memory
from custom_llm.data.sources import open_corpus
from custom_llm.data.token_file import Tokens, open_tokens
from custom_llm.tokenizer.load import find_recipe

BATCH_SIZE, BLOCK_SIZE, BATCHES = 32, 256, 5000
WORDS, BLOCK_WORDS = 50_000, 100_000


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of times and peak memory."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--megabytes", default="20,2000", help="sizes of the texts (default: 20,2000)")
    parser.add_argument("--tokenizer", default="char,bpe", help="default: char,bpe")
    parser.add_argument("--vocab_size", type=number(int, 257), default=4096, help="for bpe (default: 4096)")
    parser.add_argument("--child", nargs=3, metavar=("WORK", "FILE", "TOKENIZER"), help="for this program's own use")
    args = parser.parse_args(argv)
    if args.child:
        work, path, tokenizer = args.child
        print(json.dumps(CHILDREN[work](Path(path), tokenizer, args.vocab_size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        texts = [write_text(Path(folder), int(size)) for size in args.megabytes.split(",")]
        for tokenizer in args.tokenizer.split(","):
            for path in texts:
                for work in ("encode", "read"):
                    report(work, path, tokenizer, args.vocab_size)
            report("rival", texts[0], tokenizer, args.vocab_size)


def report(work: str, path: Path, tokenizer: str, vocab_size: int) -> None:
    """Run one measurement in a process of its own and print its figures."""
    command = [sys.executable, "-m", "benchmarks.data", "--vocab_size", str(vocab_size)]
    done = subprocess.run([*command, "--child", work, path, tokenizer], stdout=subprocess.PIPE, check=True)
    figures = ", ".join(f"{value:,.1f} {name}" for name, value in json.loads(done.stdout).items())
    print(f"{tokenizer:5} {path.name:12} {work:6}  {figures}", flush=True)


def write_text(folder: Path, megabytes: int) -> Path:
    """A text of that size, with lines, paragraphs and some letters that are not ASCII."""
    generator, path, n_bytes = random.Random(0), folder / f"{megabytes}MB.txt", 0
    letters = "eeeeeetttttaaaaoooiiinnnsssrrhhldcumfpgwybvkéü"
    words = ["".join(generator.choices(letters, k=generator.randint(1, 10))) for _ in range(WORDS)]
    ends = [" "] * 60 + [", "] * 6 + [". "] * 4 + [".\n"] * 2 + ["\n\n", " — ", "! ", "'s "]
    weights = [1 / (rank + 10) for rank in range(WORDS)]
    with path.open("wb") as file:
        while n_bytes < megabytes * 1_000_000:
            chosen = generator.choices(words, weights, k=BLOCK_WORDS)
            between = generator.choices(ends, k=BLOCK_WORDS)
            n_bytes += file.write("".join(word + end for word, end in zip(chosen, between, strict=True)).encode())
    return path


def encode(path: Path, tokenizer: str, vocab_size: int) -> dict[str, float]:
    """Time and memory of a first start."""
    start = perf_counter()
    tokens = _open(path, tokenizer, vocab_size)
    seconds = perf_counter() - start
    megabytes = path.stat().st_size / 1e6
    return {"s": seconds, "MB/s": megabytes / seconds, "MB peak": _peak(), "M tokens": len(tokens.ids) / 1e6}


def read(path: Path, tokenizer: str, vocab_size: int) -> dict[str, float]:
    """Time and memory of another start, and of batches at random places."""
    start = perf_counter()
    tokens = _open(path, tokenizer, vocab_size)
    opened = perf_counter() - start
    from custom_llm.data.dataset import TextDataset, WindowLoader

    before = _peak()
    loader = WindowLoader(TextDataset.of_tokens(tokens, BLOCK_SIZE), BATCH_SIZE, 1, seed=0)
    start = perf_counter()
    n = sum(y.numel() for _, y in islice(loader, BATCHES))
    speed = n / (perf_counter() - start) / 1e6
    return {"s to open": opened, "M tokens/s read": speed, "MB peak": _peak(), "MB before the batches": before}


def rival(path: Path, tokenizer: str, vocab_size: int) -> dict[str, float]:
    """The usual way, on ready vocabularies, and ours in the same process: encoding alone."""
    text = path.read_text(encoding="utf-8")
    tokens = _open(path, tokenizer, vocab_size)
    parts = [text[i : i + 65536] for i in range(0, len(text), 65536)]
    start = perf_counter()
    if tokenizer == "char":
        ids = {char: i for i, char in enumerate(tokens.tokenizer.tokens)}
        encoded: Any = [ids[char] for char in text]
    else:
        from tokenizers import Tokenizer

        encoded = Tokenizer.from_str(tokens.tokenizer.to_json()).encode_batch_fast(parts)
        encoded = [found.ids for found in encoded]
    theirs = perf_counter() - start
    del encoded
    start = perf_counter()
    for i in range(0, len(text), 1 << 20):
        tokens.tokenizer.encode(text[i : i + (1 << 20)])
    ours = perf_counter() - start
    megabytes = path.stat().st_size / 1e6
    return {"MB/s the usual way": megabytes / theirs, "MB/s ours": megabytes / ours, "× as fast": theirs / ours}


def _open(path: Path, tokenizer: str, vocab_size: int) -> Tokens:
    return open_tokens(open_corpus(str(path)), find_recipe(tokenizer, vocab_size), path.parent / "cache")


def _peak() -> float:
    return peak_memory() / 1e6


CHILDREN = {"encode": encode, "read": read, "rival": rival}

if __name__ == "__main__":
    sys.exit(run(main))
