"""Training a base: tokens per second and peak memory, against transformers.Trainer, and of LoRA against peft.

    OMP_NUM_THREADS=2 python -m benchmarks.finetune --rounds 3
    python -m benchmarks.finetune --method lora --base SmolLM2-135M-Instruct.Q4_1.gguf

The base is one of SmolLM2-135M's shape with random weights, made on the fly, or what `llm_model.py --from` takes (then
Trainer gets a random model of the same shape: its steps take as long). All sides see the same windows in bfloat16 with
AdamW, each in a process of its own, in turns. A turn's rate is that of its median step after the first; memory is the
most that the process has held. GFLOP/s count products only: three times those of a forward pass, with LoRA two.
Beside them stand products of large matrices, in both precisions, by as many threads.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import UserError, run
from custom_llm.common.machine import choose_waiting, peak_memory
from custom_llm.config.model import ModelConfig
from custom_llm.model.costs import costs_of

ROOT = Path(__file__).resolve().parents[1]
SMOLLM2 = ModelConfig(
    49152, 576, 9, 30, 256, 0.0, attn="gqa", n_kv_heads=3, up_dim=1536, non_linearity="swiglu", norm="rms",
    pos_emb="rope", bias=False, tie_embeddings=True,
)  # fmt: skip
RANK = 16
SIDES = {"full": ("ours", "Trainer"), "lora": ("ours", "peft")}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line a turn, and medians with ratios."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--base", help="a folder, a .gguf or a .pth (default: a random SmolLM2-135M)")
    parser.add_argument("--method", choices=SIDES, action="append", help="default: both")
    parser.add_argument("--n_layer", type=number(int, 1), default=SMOLLM2.n_layer, help="of the random base")
    parser.add_argument("--vocab_size", type=number(int, 8), default=SMOLLM2.vocab_size, help="of the random base")
    parser.add_argument("--block_size", type=number(int, 2), default=256, help="tokens of a window (default: 256)")
    parser.add_argument("--batch_size", type=number(int, 1), default=8, help="windows of a step (default: 8)")
    parser.add_argument("--steps", type=number(int, 2), default=6, help="of a turn (default: 6)")
    parser.add_argument("--rounds", type=number(int, 1), default=3, help="turns of each (default: 3)")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="default: bfloat16")
    parser.add_argument("--side", choices=("ours", "Trainer", "peft"), help="only one turn of it, as JSON")
    args = parser.parse_args(argv)
    if args.side:
        print(json.dumps(turn(args)))
        return
    for method in args.method or SIDES:
        compare(method, args, sys.argv[1:] if argv is None else list(argv))


def compare(method: str, args: Namespace, flags: list[str]) -> None:
    """Alternate the sides of a method."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(args.rounds):
        for side in SIDES[method]:
            command = [sys.executable, "-m", "benchmarks.finetune", *flags, "--side", side, "--method", method]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"{side} failed: {done.stderr.strip()[-500:]}")
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            load = os.getloadavg()[0]
            print(f"{method} {side:7s} {describe(found[side][-1])}; load {load:.1f}", flush=True)
    ours, theirs = (
        {key: median(turn[key] for turn in found[side]) for key in found[side][0]} for side in SIDES[method]
    )
    print(f"{method} ours    median {describe(ours)}\n{method} theirs  median {describe(theirs)}")
    ratio = median(a["rate"] / b["rate"] for a, b in zip(*found.values(), strict=True))
    print(f"{method}: {ratio:.2f} × as fast, {ours['memory'] / theirs['memory']:.2f} of the memory", flush=True)


def describe(turn: dict[str, float]) -> str:
    share = f"{turn['flops'] / 1e9:,.0f} GFLOP/s of {turn['peak'] / 1e9:,.0f}, of float32 {turn['peak32'] / 1e9:,.0f}"
    return f"{turn['rate']:,.0f} tokens/s ({share}), {turn['memory'] / 1e6:,.0f} MB"


def turn(args: Namespace) -> dict[str, float]:
    """Tokens and operations per second of one side, and the memory of this process, in bytes."""
    config = replace(
        SMOLLM2, n_layer=args.n_layer, vocab_size=args.vocab_size, block_size=args.block_size, layer_configs=None
    )
    method = args.method[-1]
    if args.side == "ours":
        seconds, config = train_ours(args, config, method == "lora")
    else:
        seconds = train_theirs(args, config, method == "lora")
    memory = peak_memory()
    rate = args.batch_size * args.block_size / median(seconds[1:])
    return {
        "rate": rate,
        "flops": rate * costs_of(config).flops * (2 if method == "lora" else 3),
        "memory": memory,
        "peak": multiplications_per_second(getattr(torch, args.precision)),
        "peak32": multiplications_per_second(torch.float32),
    }


def batches(args: Namespace, config: ModelConfig) -> list[torch.Tensor]:
    """Token ids of each step, (batch_size, block_size + 1)."""
    random = torch.Generator().manual_seed(0)
    shape = (args.batch_size, args.block_size + 1)
    return [torch.randint(config.vocab_size, shape, generator=random) for _ in range(args.steps)]


def train_ours(args: Namespace, config: ModelConfig, lora: bool) -> tuple[list[float], ModelConfig]:
    """Seconds of each step."""
    from custom_llm.config.training import TrainConfig
    from custom_llm.model import GPTLanguageModel
    from custom_llm.model.lora import add_lora
    from custom_llm.training.step import Step

    weights = None
    if args.base:
        from custom_llm.base.open import open_base, shortened

        base = shortened(open_base(args.base), args.block_size)
        config, weights = base.config, base.weights
    model = GPTLanguageModel(config)
    if weights is not None:
        model.load_state_dict(weights)
        del base, weights
    if lora:
        add_lora(model, RANK, 2 * RANK)
    options = TrainConfig(
        learning_rate=1e-4, batch_size=args.batch_size, optimizer="adamw", precision=args.precision, ema=0.0
    )
    step = Step(model, options, torch.device("cpu"))
    step.keep_frozen()
    return [timed(lambda ids=ids: step([(ids[:, :-1], ids[:, 1:])], 1e-4)) for ids in batches(args, config)], config


def train_theirs(args: Namespace, config: ModelConfig, lora: bool) -> list[float]:
    """The same of transformers.Trainer."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.n_embd, intermediate_size=config.up_dim,
            num_hidden_layers=config.n_layer, num_attention_heads=config.n_head,
            num_key_value_heads=config.n_kv_heads, max_position_embeddings=args.block_size, tie_word_embeddings=True,
            dtype=torch.float32,
        )
    )  # fmt: skip
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: object, **kwargs: object) -> None:
            ends.append(perf_counter())

        def on_step_end(self, *args: object, **kwargs: object) -> None:
            ends.append(perf_counter())

    rows = [{"input_ids": row[:-1], "labels": row[:-1]} for ids in batches(args, config) for row in ids]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder, per_device_train_batch_size=args.batch_size, max_steps=args.steps, learning_rate=1e-4,
            bf16=args.precision == "bfloat16", use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        Trainer(model=model, args=options, train_dataset=rows, callbacks=[Clock()]).train()
    return [after - before for before, after in itertools.pairwise(ends)]


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def multiplications_per_second(dtype: torch.dtype, n: int = 2048, turns: int = 5) -> float:
    """Floating-point operations a second in products of large matrices, the best of some turns."""
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    a @ b
    return 2 * n**3 / min(timed(lambda: a @ b) for _ in range(turns))


if __name__ == "__main__":
    choose_waiting()
    sys.exit(run(main))
