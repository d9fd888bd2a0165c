"""How fast is text: our engine against llama.cpp's own benchmark and against llama-cpp-python's Llama class.

    python -m benchmarks.inference                                       # a random model of 0.84 M parameters
    python -m benchmarks.inference --gguf_path model.gguf.Q8_0.gguf --threads 2 --rounds 15
    python -m benchmarks.inference --llama_bench llama.cpp/build/bin/llama-bench

The three take turns on the same file with the same number of threads, so that a busy machine hurts all
alike; medians are printed. `llama-bench` only decodes; the engine also samples and makes text. Last come the
times a person waits for: `--help`, and the first text of a new process.
"""

from __future__ import annotations

import json
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import run
from custom_llm.config.sampling import Sampling
from custom_llm.inference.engine import Engine

ROOT = Path(__file__).parents[1]
LLAMA_BENCH_PLACES = ("llama.cpp/build/bin/llama-bench", "llama.cpp/llama-bench")
SETTINGS = Sampling(seed=1)
REPEATS = 5  # texts in a turn, whose median counts: the first is slow, since the turn before has cooled the caches


def main(argv: Sequence[str] | None = None) -> None:
    """Print tokens per second, their ratios, and the start times."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--gguf_path", metavar="FILE", help="the model (default: a random one)")
    parser.add_argument("--tokens", type=number(int, 1), default=100, help="tokens a turn (default: 100)")
    parser.add_argument("--rounds", type=number(int, 1), default=11, help="turns of each (default: 11)")
    parser.add_argument("--threads", type=number(int, 1), help="CPU threads (default: by the model's size)")
    parser.add_argument("--llama_bench", metavar="FILE", help=f"default: {' or '.join(LLAMA_BENCH_PLACES)}")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(args.gguf_path) if args.gguf_path else random_model(Path(folder))
        compare_speed(path, args.tokens, args.rounds, args.threads, args.llama_bench)
        measure_start(path, args.rounds)


def compare_speed(path: Path, tokens: int, rounds: int, threads: int | None, llama_bench: str | None) -> None:
    """Print the median tokens per second of each contestant and the engine's ratio to it."""
    with Engine(path, n_threads=threads) as engine:
        tokens = min(tokens, engine.window - 1)  # Llama cannot slide its window
        contestants = {
            "engine": _engine_turn(engine, tokens),
            "Llama.__call__": _llama_turn(path, engine, tokens),
        }
        binary = llama_bench or next((str(ROOT / p) for p in LLAMA_BENCH_PLACES if (ROOT / p).exists()), None)
        if binary:
            contestants["llama-bench"] = _llama_bench_turn(binary, path, engine.n_threads, tokens)
        else:
            print("llama-bench: not found, left out; give --llama_bench FILE")
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, turn in contestants.items():
                speeds[name].append(turn())
        print(f"{path.name}: {tokens} tokens, {engine.n_threads} thread(s), median of {rounds}")
    for name, values in speeds.items():
        ratio = median(speeds["engine"]) / median(values)
        print(f"  {name:<15} {median(values):8,.0f} tokens/s    engine / this: {ratio:.2f}")


def measure_start(path: Path, rounds: int) -> None:
    """Print the median seconds from starting the process to `--help` done, and to the first new text."""
    script = [sys.executable, str(ROOT / "inference_gguf.py")]
    query = "a"
    waits: dict[str, list[float]] = {"--help": [], "first text": []}
    with tempfile.TemporaryDirectory() as folder:  # for inference.log
        for _ in range(rounds):
            start = perf_counter()
            subprocess.run([*script, "--help"], check=True, capture_output=True, cwd=folder)
            waits["--help"].append(perf_counter() - start)
            command = [*script, "--gguf_path", str(path.resolve()), "--query", query]
            start = perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder) as child:
                child.stdout.read(len(query) + 1)
                waits["first text"].append(perf_counter() - start)
                child.stdout.read()
    for name, seconds in waits.items():
        print(f"  {name:<15} {median(seconds):8.2f} s after the process starts")


def _engine_turn(engine: Engine, tokens: int) -> Callable[[], float]:
    def once() -> float:
        text = engine.stream([], tokens, SETTINGS, ignore_eos=True)
        for _ in text:
            pass
        return text.statistics.tokens_per_second

    def turn() -> float:
        return median(once() for _ in range(REPEATS))

    return turn


def _llama_turn(path: Path, engine: Engine, tokens: int) -> Callable[[], float]:
    import llama_cpp

    threads = engine.n_threads
    llama = llama_cpp.Llama(str(path), n_ctx=engine.window, n_threads=threads, n_threads_batch=threads, verbose=False)
    start_token = [engine.model.eos] if engine.model.eos >= 0 else [0]

    def once() -> float:
        llama.reset()
        start = perf_counter()
        result = llama(
            start_token,
            max_tokens=tokens,
            temperature=SETTINGS.temp,
            top_k=SETTINGS.top_k,
            top_p=SETTINGS.top_p,
            min_p=SETTINGS.min_p,
            repeat_penalty=SETTINGS.repeat_penalty,
            seed=SETTINGS.seed,
        )
        return result["usage"]["completion_tokens"] / (perf_counter() - start)

    def turn() -> float:
        return median(once() for _ in range(REPEATS))

    return turn


def _llama_bench_turn(binary: str, path: Path, threads: int, tokens: int) -> Callable[[], float]:
    command = [binary, "-m", str(path), "-t", str(threads), "-p", "0", "-n", str(tokens)]
    command += ["-r", str(REPEATS), "-o", "json"]

    def turn() -> float:
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return median(json.loads(output)[0]["samples_ts"])

    return turn


def random_model(folder: Path) -> Path:
    """4 layers, n_embd 128, 70 tokens, block_size 128: what a first training run gives, untrained."""
    from tests.tiny_gguf import write_gpt2

    characters = (string.ascii_letters + string.digits + string.punctuation)[:69]
    return write_gpt2(folder / "random.gguf", characters, block_size=128, n_layer=4, n_head=4, n_embd=128)


if __name__ == "__main__":
    sys.exit(run(main))
