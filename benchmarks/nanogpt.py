"""Time to the same held-out loss: nanoGPT, unmodified, against train_llm.py, whole processes by the wall clock.

    git clone https://github.com/karpathy/nanoGPT ../nanoGPT
    OMP_NUM_THREADS=2 python -m benchmarks.nanogpt ../nanoGPT input.txt --rounds 3

nanoGPT trains by its own setting for a CPU on tiny Shakespeare; then our model of at most as many parameters learns the
same text with the same threads, in the minutes given. Turns alternate, and medians are printed. nanoGPT's loss is the
one it prints, from 20 random batches; ours is that of the whole last tenth. --model and --training change what we train
and how.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from custom_llm.cli import ArgumentParser, number
from custom_llm.errors import UserError, run

ROOT = Path(__file__).resolve().parents[1]
THEIRS = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=100 --block_size=64 "
    "--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)
MODELS = {
    "modern": "--preset modern --n_embd 128 --n_head 4 --n_layer 4 --block_size 64 --dropout 0 --up_dim 320",
    "classic": "--n_embd 128 --n_head 4 --n_layer 4 --block_size 64 --dropout 0",
}
TRAINING = "--batch_size 6 --learning_rate 0.01"


def main(argv: Sequence[str] | None = None) -> None:
    """Print seconds, losses and ratios."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("nanogpt", metavar="CHECKOUT", help="a clone of nanoGPT")
    parser.add_argument("file", metavar="FILE", help="tiny Shakespeare")
    parser.add_argument("--model", choices=MODELS, default="modern", help="default: modern")
    parser.add_argument("--model_flags", default="", help="more flags for llm_model.py")
    parser.add_argument("--training", default=TRAINING, help=f"flags for train_llm.py (default: {TRAINING})")
    parser.add_argument("--minutes", type=number(float, 0.01), default=0.35, help="of our training (default: 0.35)")
    parser.add_argument("--rounds", type=number(int, 1), default=3, help="turns of each (default: 3)")
    parser.add_argument("--only_ours", action="store_true", help="do not run nanoGPT")
    args = parser.parse_args(argv)
    prepare(Path(args.nanogpt), Path(args.file))
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            if not args.only_ours:
                theirs.append(run_nanogpt(Path(args.nanogpt), Path(folder)))
                print(f"nanoGPT {theirs[-1][0]:6.1f} s, held-out {theirs[-1][1]:.4f}", flush=True)
            flags = f"{args.training} --minutes {args.minutes}"
            ours.append(run_ours(Path(folder), Path(args.file), f"{MODELS[args.model]} {args.model_flags}", flags))
            print(f"ours    {ours[-1][0]:6.1f} s, held-out {ours[-1][1]:.4f}", flush=True)
    ours_seconds, ours_loss = (median(values) for values in zip(*ours, strict=True))
    print(f"ours    median {ours_seconds:.1f} s, held-out {ours_loss:.4f}")
    if theirs:
        seconds, loss = (median(values) for values in zip(*theirs, strict=True))
        print(f"nanoGPT median {seconds:.1f} s, held-out {loss:.4f}; ours {seconds / ours_seconds:.2f} × as soon")


def prepare(checkout: Path, text: Path) -> None:
    """Let nanoGPT encode the text, which it would download otherwise."""
    folder = checkout / "data/shakespeare_char"
    if not (folder / "prepare.py").exists():
        raise UserError(f"{checkout} is no checkout of nanoGPT; git clone https://github.com/karpathy/nanoGPT")
    shutil.copy(text, folder / "input.txt")
    subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def run_nanogpt(checkout: Path, folder: Path) -> tuple[float, float]:
    """Seconds of a run, and the last held-out loss it prints."""
    command = [sys.executable, "train.py", *shlex.split(THEIRS), f"--out_dir={folder / 'out'}"]
    seconds, output = _timed(command, checkout)
    return seconds, float(re.findall(r"val loss ([\d.]+)", output)[-1])


def run_ours(folder: Path, text: Path, model: str, training: str) -> tuple[float, float]:
    """Seconds of a run of train_llm.py, encoding and text generation included, and the lowest held-out loss."""
    subprocess.run(
        [sys.executable, ROOT / "llm_model.py", *shlex.split(model)], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(folder / "cache", ignore_errors=True)
    command = [
        sys.executable,
        str(ROOT / "train_llm.py"),
        "--dataset_path",
        str(text.resolve()),
        "--cache_dir",
        "cache",
    ]
    seconds, output = _timed([*command, *shlex.split(training)], folder)
    return seconds, min(map(float, re.findall(r"Held-out: ([\d.]+)", output)))


def _timed(command: list[str], folder: Path) -> tuple[float, str]:
    start = perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)} if command[1].startswith(str(ROOT)) else None,
    )
    return perf_counter() - start, done.stdout


if __name__ == "__main__":
    sys.exit(run(main))
