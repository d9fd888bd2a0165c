"""What the server costs: its speed against the engine's own, and many clients at once.

    python -m benchmarks.serving                                     # a random model of 0.84 M parameters
    python -m benchmarks.serving --gguf_path model.gguf.Q8_0.gguf --rounds 15

Engine and server take turns on the same text with the same seed, so that a busy machine hurts both alike: the time
from asking for a text to its last token. Then 1, 8 and 32 clients ask 20 times each, every client with a seed of its
own; each answer is compared with what the engine writes for that seed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import httpx
import psutil

from benchmarks.inference import ROOT, random_model
from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import run
from custom_llm.config.sampling import Sampling
from custom_llm.inference.engine import Engine

CLIENTS = (1, 8, 32)
REQUESTS = 20  # of each client
LOAD_TOKENS = 50


def main(argv: Sequence[str] | None = None) -> None:
    """Print the ratio of speeds, and the waits under load."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--gguf_path", metavar="FILE", help="the model (default: a random one)")
    parser.add_argument("--tokens", type=number(int, 1), default=2000, help="tokens a turn (default: 2000)")
    parser.add_argument("--rounds", type=number(int, 1), default=11, help="turns of each (default: 11)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.gguf_path) if args.gguf_path else random_model(Path(folder))
        start = perf_counter()
        with Engine(path) as engine, serving(path) as (url, process):
            print(f"{path.name}: ready after {perf_counter() - start:.2f} s")
            compare_speed(engine, url, args.tokens, args.rounds)
            for n_clients in CLIENTS:
                load(engine, url, process, n_clients)


@contextmanager
def serving(path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server of its own process: its address and the process."""
    command = [sys.executable, str(ROOT / "serve_gguf.py"), "--gguf_path", str(path), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            yield server.stdout.readline().split(" on ")[1].split()[0], psutil.Process(server.pid)
        finally:
            server.terminate()


def compare_speed(engine: Engine, url: str, tokens: int, rounds: int) -> None:
    """Print the median tokens per second of both, and the median of the turns' ratios."""
    alone, served = [], []
    with httpx.Client(base_url=url, timeout=None) as client:
        for turn in range(rounds + 1):
            start = perf_counter()
            expected = "".join(engine.generate("", tokens, Sampling(seed=turn), ignore_eos=True))
            middle = perf_counter()
            text, _ = stream(client, turn, tokens)
            end = perf_counter()
            assert text == expected
            if turn:  # the first warms up
                alone.append(tokens / (middle - start))
                served.append(tokens / (end - middle))
    ratio = median(after / before for before, after in zip(alone, served, strict=True))
    print(f"engine alone {median(alone):,.0f} tokens/s, one client {median(served):,.0f}, ratio {ratio:.2f}")


def load(engine: Engine, url: str, process: psutil.Process, n_clients: int) -> None:
    """Print how long clients wait, and what memory it takes."""
    expected = [
        "".join(engine.generate("", LOAD_TOKENS, Sampling(seed=seed), ignore_eos=True)) for seed in range(n_clients)
    ]

    def one_client(seed: int) -> list[tuple[str, float]]:
        with httpx.Client(base_url=url, timeout=None) as client:
            return [stream(client, seed, LOAD_TOKENS) for _ in range(REQUESTS)]

    before = process.memory_info().rss
    start = perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        answers = list(pool.map(one_client, range(n_clients)))
    seconds = perf_counter() - start
    time.sleep(0.2)
    after = process.memory_info().rss
    right = sum(text == expected[seed] for seed, texts in enumerate(answers) for text, _ in texts)
    waits = [1000 * wait for texts in answers for _, wait in texts]
    print(
        f"{n_clients:2} clients: {right} of {n_clients * REQUESTS} texts right,"
        f" {right * LOAD_TOKENS / seconds:,.0f} tokens/s, first text after {median(waits):.1f} ms"
        f" (95 % within {quantiles(waits, n=20)[-1]:.1f}), memory {before / 1e6:.1f} -> {after / 1e6:.1f} MB"
    )


def stream(client: httpx.Client, seed: int, tokens: int) -> tuple[str, float]:
    """A text, and the seconds until the first of it."""
    body = {"seed": seed, "max_tokens": tokens, "stream": True, "ignore_eos": True, "top_p": 0.95}
    start = perf_counter()
    first = None
    text = ""
    with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[len("data: ") :])["choices"][0]["text"]
                first = first or perf_counter() - start
    return text, first


if __name__ == "__main__":
    sys.exit(run(main))
