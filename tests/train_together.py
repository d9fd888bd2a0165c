"""Small trainings in one process or, started by torchrun, in several; for test_distributed.py.

torchrun --nproc-per-node 2 tests/train_together.py CASES RESULTS
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from architectures import EXPERTS, tiny
from conftest import STORY

from custom_llm.config.training import TrainConfig
from custom_llm.data.dataset import TextDataset, WindowLoader
from custom_llm.model.gpt import NOT_TRAINED_ON
from custom_llm.model.lora import add_lora, freeze
from custom_llm.training.distributed.processes import ALONE, Processes
from custom_llm.training.loop import Trainer, held_out_loss

BLOCK_SIZE, BATCH_SIZE = 16, 4
TEXT = STORY * 4  # 26 windows in an epoch: 7 batches, the last of them short
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "classic": {},
    "modern": dict(
        pos_emb="rope", norm="rms", bias=False, non_linearity="swiglu", attn="gqa", n_kv_heads=2, tie_embeddings=True
    ),
    "softmax": EXPERTS["softmax"],
    "aux_free": {**EXPERTS["aux_free"], "gamma": 0.01},
}


class MaskedDataset(TextDataset):
    """A text of which some windows are not trained on at all, and others in part."""

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitems__(indices)
        return x, torch.where(x[:, :1] + x % 2 > self.vocab_size // 2, NOT_TRAINED_ON, y)


@dataclass
class Case:
    """A training of two epochs.

    Attributes:
        batches: of a step.
        resumed: the state to resume.
        masked: whether a third of the targets, spread unevenly, is not trained on.
        partial: options of a training of some weights, such as `lora`.
    """

    architecture: str
    optimizer: str
    strategy: str = "ddp"
    batches: int = 2
    dropout: float = 0.0
    resumed: dict[str, Any] | None = field(default=None, repr=False)
    masked: bool = False
    partial: dict[str, Any] = field(default_factory=dict)

    def run(self, processes: Processes = ALONE) -> dict[str, Any]:
        """Train; `losses` of each step, the `states` after each, and the `held_out` loss of averaged weights."""
        torch.set_num_threads(1)
        dataset = (MaskedDataset if self.masked else TextDataset)(TEXT, BLOCK_SIZE)
        config = TrainConfig(
            batch_size=BATCH_SIZE, learning_rate=0.001, max_epochs=2, ckpt_interval=1, optimizer=self.optimizer,
            strategy=self.strategy, ema=0.9, total_batch_size=str(self.batches * BATCH_SIZE * BLOCK_SIZE),
            **self.partial,
        )  # fmt: skip
        changes = dict(vocab_size=dataset.vocab_size, block_size=BLOCK_SIZE, dropout=self.dropout)
        model = tiny(**{**ARCHITECTURES[self.architecture], **changes})
        if config.lora:
            add_lora(model, config.lora, 2.0 * config.lora, last=config.train_layers)
        elif config.train_layers:
            freeze(model, config.train_layers)
        torch.manual_seed(processes.rank)
        loader = WindowLoader(dataset, BATCH_SIZE, None, 3, processes.rank, processes.size)
        states: list[dict[str, Any]] = []
        trainer = Trainer(
            model, loader, config, torch.device("cpu"), save=lambda state: states.append(copy.deepcopy(state)),
            processes=processes,
        )  # fmt: skip
        if self.resumed is not None:
            trainer.load_state_dict(self.resumed)
        trainer.run()
        with trainer.step.averaged():
            held_out = held_out_loss(model, dataset.data[:300], processes)
        return {
            "losses": _losses([self.resumed] if self.resumed else [], states),
            "states": states,
            "held_out": held_out,
        }


def _losses(resumed: list[dict[str, Any]], states: list[dict[str, Any]]) -> list[float]:
    """The mean loss of each step, from the sums since the last report that are in checkpoints."""
    sums = [(state["losses"]["total"], state["losses"]["tokens"]) for state in [*resumed, *states]]
    steps = []
    for before, after in pairwise(sums if resumed else [(0.0, 0), *sums]):
        if after[1] > before[1]:
            steps.append((after[0] - before[0]) / (after[1] - before[1]))
        elif after[1]:  # there was a report between them
            steps.append(after[0] / after[1])
    return steps


def main(cases: str, results: str) -> None:
    """Run pickled cases; one whose `resumed` is a pair (case, step) resumes that of an earlier one."""
    with Processes.joined() as processes:
        done: list[dict[str, Any]] = []
        for case in torch.load(cases, weights_only=False):
            if isinstance(case.resumed, tuple):
                place, step = case.resumed
                case.resumed = processes.shared(lambda place=place, step=step: done[place]["states"][step])
            done.append(case.run(processes))
        if processes.rank == 0:
            torch.save(done, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
