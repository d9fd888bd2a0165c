"""What a mixture of experts costs: against a dense model that computes as much for a token.

    python -m benchmarks.moe                                    # 2 of 8 experts, balanced by a loss
    python -m benchmarks.moe --n_exp 33 --n_act 5 --n_shared 1 --up_dim 128 --aux_free

Both models have the same layers, width and heads, and the dense feed-forward layer is as wide as the experts that are
active for a token together. They take turns, so that a busy machine hurts both alike; medians are printed. Training is
forward, backward and a step of the optimizers; gradient is that without the step; forward is reading only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import torch

from custom_llm.cli.parser import ArgumentParser, number
from custom_llm.common.errors import UserError, run
from custom_llm.config.model import ModelConfig
from custom_llm.config.training import TrainConfig
from custom_llm.model import GPTLanguageModel
from custom_llm.training.optim.optimizers import make_optimizers

SIZES = dict(vocab_size=256, n_embd=256, n_head=8, n_layer=4, block_size=128, batch_size=16)
STEPS = 3  # in a turn


def main(argv: Sequence[str] | None = None) -> None:
    """Print tokens per second of both models, and their ratio."""
    parser = ArgumentParser(__doc__)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=number(int, 1), default=default, help=f"default: {default}")
    parser.add_argument("--n_exp", type=number(int, 2), default=8, help="experts (default: 8)")
    parser.add_argument("--n_act", type=number(int, 1), default=2, help="active ones (default: 2)")
    parser.add_argument("--n_shared", type=number(int, 0), default=0, help="always active ones (default: 0)")
    parser.add_argument("--up_dim", type=number(int, 1), default=352, help="width of an expert (default: 352)")
    parser.add_argument("--non_linearity", default="swiglu", help="default: swiglu")
    parser.add_argument("--aux_free", action="store_true", help="balance by biases")
    parser.add_argument("--rounds", type=number(int, 1), default=5, help="turns of each (default: 5)")
    parser.add_argument("--threads", type=number(int, 1), help="CPU threads (default: torch's)")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    common = {name: getattr(args, name) for name in (*SIZES, "non_linearity") if name != "batch_size"}
    experts = {name: getattr(args, name) for name in ("n_exp", "n_act", "n_shared", "up_dim", "aux_free")}
    try:
        configs = {
            "dense": ModelConfig(**common, dropout=0.0, bias=False, up_dim=args.n_act * args.up_dim),
            "experts": ModelConfig(**common, dropout=0.0, bias=False, moe=True, **experts),
        }
    except ValueError as error:
        raise UserError(str(error)) from None
    compare(configs, args.batch_size, args.rounds)


def compare(configs: dict[str, ModelConfig], batch_size: int, rounds: int) -> None:
    """Let the models take turns and print what came of it."""
    torch.manual_seed(0)
    turns: dict[tuple[str, str], Callable[[], None]] = {}
    for name, config in configs.items():
        model = GPTLanguageModel(config)
        print(f"{name:<8} {model.n_parameters() / 1e6:.2f}M parameters")
        ids = torch.randint(config.vocab_size, (batch_size, config.block_size))
        turns["training", name] = _training(model, ids)
        turns["gradient", name] = _gradient(model, ids)
        turns["forward", name] = _forward(model, ids)
    n_tokens = batch_size * config.block_size
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in turns}
    for _ in range(rounds):
        for key, turn in turns.items():
            turn()  # the turn before has cooled the caches
            start = perf_counter()
            for _ in range(STEPS):
                turn()
            speeds[key].append(STEPS * n_tokens / (perf_counter() - start))
    print(f"{n_tokens} tokens a step, {torch.get_num_threads()} thread(s), median of {rounds}")
    for kind in ("training", "gradient", "forward"):
        dense, experts = (median(speeds[kind, name]) for name in ("dense", "experts"))
        print(f"  {kind:<9} dense {dense:9,.0f} tokens/s    experts {experts:9,.0f}    ratio {experts / dense:.2f}")


def _training(model: GPTLanguageModel, ids: torch.Tensor) -> Callable[[], None]:
    optimizers = make_optimizers(model, TrainConfig(learning_rate=1e-3))
    gradient = _gradient(model, ids)

    def turn() -> None:
        gradient()
        for optimizer in optimizers:
            optimizer.step()
        model.rebalance()

    return turn


def _gradient(model: GPTLanguageModel, ids: torch.Tensor) -> Callable[[], None]:
    targets = ids.roll(-1, 1)

    def turn() -> None:
        model.train().zero_grad(set_to_none=True)
        (model(ids, targets)[1] + model.balance_loss()).backward()

    return turn


def _forward(model: GPTLanguageModel, ids: torch.Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def turn() -> None:
        model.eval()
        model(ids)

    return turn


if __name__ == "__main__":
    sys.exit(run(main))
