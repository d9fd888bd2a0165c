"""nanoGPT, unmodified, against train_llm.py on tiny Shakespeare: time to the same held-out loss, and tokens per second.

    git clone https://github.com/karpathy/nanoGPT ../nanoGPT
    OMP_NUM_THREADS=2 python -m benchmarks.nanogpt ../nanoGPT input.txt --rounds 3
    OMP_NUM_THREADS=2 python -m benchmarks.nanogpt ../nanoGPT input.txt --rounds 3 --speed
    python -m benchmarks.nanogpt ../nanoGPT input.txt --setting gpu --rounds 2 --seeds 3

nanoGPT trains by its own setting for a CPU (or a GPU); then ours learn the same nine tenths of the text with the same
threads: `modern`, with fewer parameters, and `classic`, which is nanoGPT's model trained by our engine alone. Turns
alternate. Time is the wall clock of a process, from its start to the line with a held-out loss as low as the last one
nanoGPT prints in that round (on a GPU: as the published 1.4697); ours includes encoding the text. nanoGPT's loss is the
mean of random batches, ours that of the whole last tenth.

--seeds: then how low a longer training of `modern` comes, in no more time than nanoGPT took to its loss.

--speed trains the same model with the same optimizer on both sides and compares their steps.
"""

from __future__ import annotations

import csv
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import UserError, run
from custom_llm.config.model import ModelConfig
from custom_llm.model.costs import costs_of

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Setting:
    """What both sides are given.

    Attributes:
        theirs: arguments of nanoGPT's train.py.
        models: name → flags of llm_model.py.
        training: name → flags of train_llm.py.
        target: the held-out loss to reach; None: the last of nanoGPT's.
        long: flags of llm_model.py and of train_llm.py for --seeds.
    """

    theirs: str
    models: dict[str, str]
    training: dict[str, str]
    target: float | None = None
    long: tuple[str, str] | None = None


SETTINGS = {
    "cpu": Setting(
        "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=100 "
        "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 "
        "--dropout=0.0",
        {
            "modern": "--preset modern --n_embd 96 --n_head 3 --n_layer 2 --block_size 64 --dropout 0",
            "classic": "--n_embd 128 --n_head 4 --n_layer 4 --block_size 64 --dropout 0 --no_bias --tie_embeddings",
        },
        {
            "modern": "--batch_size 12 --learning_rate 0.0005 --max_iters 230 --device cpu",
            "classic": "--batch_size 12 --learning_rate 0.001 --max_iters 385 --device cpu",
        },
    ),
    "gpu": Setting(
        "config/train_shakespeare_char.py",
        {"modern": "--preset modern --n_embd 384 --n_head 6 --n_layer 6 --block_size 256 --dropout 0"},
        {"modern": "--batch_size 64 --learning_rate 0.0005 --max_iters 200 --device cuda"},
        1.4697,
        (
            "--preset modern --n_embd 384 --n_head 6 --n_layer 6 --block_size 256 --dropout 0.1",
            "--batch_size 32 --learning_rate 0.0005 --max_iters 700 --device cuda",
        ),
    ),
}
# The same model, batch and optimizer as nanoGPT's, for --speed.
ALIKE = (
    "--optimizer adamw --batch_size 12 --learning_rate 0.001 --max_iters {} --ema 0 --sample_tokens 0 "
    "--eval_interval 1000000 --device cpu"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Print seconds, losses and ratios."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("nanogpt", metavar="CHECKOUT", help="a clone of nanoGPT")
    parser.add_argument("file", metavar="FILE", help="tiny Shakespeare")
    parser.add_argument("--setting", choices=SETTINGS, default="cpu", help="default: cpu")
    parser.add_argument("--model", action="append", choices=("modern", "classic"), help="ours (default: all)")
    parser.add_argument("--model_flags", default="", help="more flags for llm_model.py")
    parser.add_argument("--training", default="", help="more flags for train_llm.py")
    parser.add_argument("--target", type=number(float, 0.01), help="the held-out loss to reach")
    parser.add_argument("--rounds", type=number(int, 1), default=3, help="turns of each (default: 3)")
    parser.add_argument("--seeds", type=number(int, 0), default=0, help="of the longer training (default: 0)")
    parser.add_argument("--speed", action="store_true", help="compare steps of the same model instead")
    parser.add_argument("--steps", type=number(int, 10), default=200, help="of a turn with --speed (default: 200)")
    parser.add_argument("--only_ours", action="store_true", help="do not run nanoGPT")
    args = parser.parse_args(argv)
    checkout, text, setting = Path(args.nanogpt).resolve(), Path(args.file).resolve(), SETTINGS[args.setting]
    prepare(checkout, text)
    if args.speed:
        compare_speed(checkout, text, setting, args)
    else:
        compare_time(checkout, text, setting, args)


def compare_time(checkout: Path, text: Path, setting: Setting, args: Namespace) -> None:
    """Alternate whole trainings, and print after which time each had the loss."""
    seconds: dict[str, list[float]] = defaultdict(list)
    models = [name for name in setting.models if not args.model or name in args.model]
    for turn in range(1, args.rounds + 1):
        target = args.target or setting.target
        if not args.only_ours:
            losses = train_nanogpt(checkout, setting.theirs, target)
            target = target or losses[-1][1]
            seconds["nanoGPT"].append(reached(losses, target))
            print(f"{turn} nanoGPT {seconds['nanoGPT'][-1]:6.1f} s; last held-out loss {losses[-1][1]:.4f}", flush=True)
        for name in models:
            training = f"{setting.training[name]} --sample_tokens 0 --eval_interval 1000000 {args.training}"
            losses = train_ours(text, f"{setting.models[name]} {args.model_flags}", training)
            seconds[name].append(reached(losses, target) if target else losses[-1][0])
            print(f"{turn} {name:7s} {seconds[name][-1]:6.1f} s; last held-out loss {losses[-1][1]:.4f}", flush=True)
    for name, values in seconds.items():
        times = f", {median(seconds['nanoGPT']) / median(values):.2f} × as soon" if "nanoGPT" in seconds else ""
        print(f"{name:7s} median {median(values):.1f} s{times}", flush=True)
    if args.seeds and setting.long:
        compare_losses(text, setting.long, median(seconds.get("nanoGPT", [math.inf])), args.seeds)


def compare_losses(text: Path, flags: tuple[str, str], seconds: float, n_seeds: int) -> None:
    """Print the lowest held-out losses within so many seconds from the start of the process."""
    model, training = flags
    lowest = []
    for seed in range(1, n_seeds + 1):
        losses = train_ours(text, model, f"{training} --seed {seed} --sample_tokens 0")
        lowest.append(min((loss for at, loss in losses if at <= seconds), default=math.inf))
        print(f"seed {seed}: {lowest[-1]:.4f} within {seconds:.0f} s, ended after {losses[-1][0]:.0f} s", flush=True)
    print(f"mean {sum(lowest) / n_seeds:.4f}", flush=True)


def compare_speed(checkout: Path, text: Path, setting: Setting, args: Namespace) -> None:
    """Alternate trainings of the same model, and print tokens per second and the share of the matrix products' rate."""
    ours, theirs, peaks = [], [], []
    model, training = f"{setting.models['classic']} {args.model_flags}", f"{ALIKE.format(args.steps)} {args.training}"
    for _ in range(args.rounds):
        peaks.append(multiplications_per_second())
        steps = f"--max_iters={args.steps} --eval_interval=100000 --eval_iters=1 --log_interval=1"
        output = run_timed([sys.executable, "-u", "train.py", *shlex.split(f"{setting.theirs} {steps}")], checkout)
        times = re.findall(r"iter \d+: .*time ([\d.]+)ms", "\n".join(line for _, line in output))
        theirs.append(12 * 64 / (median(map(float, times[5:])) / 1000))
        ours.append(train_ours(text, model, training, speed=True)[0][1])
        print(f"nanoGPT {theirs[-1]:,.0f} tokens/s, ours {ours[-1]:,.0f}", flush=True)
    flops = 3 * costs_of(ModelConfig(66, 128, 4, 4, 64, 0.0, bias=False, tie_embeddings=True)).flops
    for name, speeds in (("nanoGPT", theirs), ("ours", ours)):
        share = median(speeds) * flops / median(peaks)
        print(f"{name:7s} median {median(speeds):,.0f} tokens/s, {share:.0%} of {median(peaks) / 1e9:.0f} GFLOP/s")
    print(f"ours {median(ours) / median(theirs):.2f} × as fast")


def prepare(checkout: Path, text: Path) -> None:
    """Let nanoGPT encode the text, which it would download otherwise."""
    folder = checkout / "data/shakespeare_char"
    if not (folder / "prepare.py").exists():
        raise UserError(f"{checkout} is no checkout of nanoGPT; git clone https://github.com/karpathy/nanoGPT")
    shutil.copy(text, folder / "input.txt")
    subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def train_nanogpt(checkout: Path, arguments: str, target: float | None) -> list[tuple[float, float]]:
    """Seconds since the start of the process, and held-out loss, of each evaluation, until it is as low as `target`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-u", "train.py", *shlex.split(arguments), f"--out_dir={folder}"]
        output = run_timed(command, checkout, lambda line: bool(target and (loss := _theirs(line)) and loss <= target))
    return [(seconds, loss) for seconds, line in output if (loss := _theirs(line)) is not None]


def _theirs(line: str) -> float | None:
    found = re.search(r"val loss ([\d.]+)", line)
    return float(found[1]) if found else None


def train_ours(text: Path, model: str, training: str, speed: bool = False) -> list[tuple[float, float]]:
    """The same of train_llm.py; with `speed`, only the median of its tokens per second, after 0 seconds."""
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, str(ROOT / "llm_model.py"), *shlex.split(model)]
        subprocess.run(make, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        train = [sys.executable, str(ROOT / "train_llm.py"), "--dataset_path", str(text), "--cache_dir", "cache"]
        output = run_timed([*train, *shlex.split(training)], Path(folder))
        if speed:
            with Path(folder, "trained_model.loss.csv").open(encoding="utf-8") as file:
                return [(0.0, median(float(row["tokens_per_second"]) for row in csv.DictReader(file)))]
    found = [(seconds, re.search(r"Held-out: ([\d.]+)", line)) for seconds, line in output]
    return [(seconds, float(match[1])) for seconds, match in found if match]


def reached(losses: list[tuple[float, float]], target: float) -> float:
    """Seconds until the loss was as low as that; infinite if it never was."""
    return next((seconds for seconds, loss in losses if loss <= target), math.inf)


def multiplications_per_second(n: int = 2048, turns: int = 5) -> float:
    """Floating-point operations a second in products of large matrices, by as many threads as the trainings have."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    a @ b
    start = perf_counter()
    for _ in range(turns):
        a @ b
    return turns * 2 * n**3 / (perf_counter() - start)


def run_timed(
    command: list[str], folder: Path, is_last: Callable[[str], bool] = lambda line: False
) -> list[tuple[float, str]]:
    """Lines that a process prints, each with the seconds since its start; after the last one of interest it is ended.

    Raises:
        UserError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if command[1].startswith(str(ROOT)) else ""}
    start = perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment) as process:
        lines = []
        for line in process.stdout:
            lines.append((perf_counter() - start, line))
            if is_last(line):
                process.terminate()
                return lines
    if process.returncode:
        raise UserError(f"{shlex.join(command)} failed; what it said stands above")
    return lines


if __name__ == "__main__":
    sys.exit(run(main))
