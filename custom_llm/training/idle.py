"""Options of a training that have no effect in it, which a person who gave them should know."""

from __future__ import annotations

import os
from collections.abc import Iterator

from custom_llm.config.training import FROM_BASE, TrainConfig
from custom_llm.training.clock import REPORTS

DEFAULT = TrainConfig()


def without_effect(config: TrainConfig, n_processes: int = 1) -> Iterator[str]:
    """What can be said of options by themselves."""
    if config.schedule == "constant" and config.min_lr is not None:
        yield f"--min_lr {config.min_lr:g} has no effect with --schedule constant, which stays at --learning_rate"
    if config.strategy == "fsdp" and n_processes == 1:
        yield "--strategy fsdp has no effect in one process; start several with torchrun"
    cores = os.cpu_count() or 1
    if config.threads is not None and config.threads > cores:
        yield f"--threads {config.threads}: this machine has {cores}, which are used"


def too_much_for(config: TrainConfig, n_steps: int, n_tokens: int, per_step: int, n_windows: int) -> Iterator[str]:
    """What is more than a training of so many steps has.

    Args:
        n_tokens: of the text that is trained on, in n_windows windows.
        per_step: tokens of a step.
    """
    warm_up = config.warmup_steps
    if warm_up is not None and warm_up >= n_steps:
        yield (
            f"--warmup_steps {warm_up}: this training has {n_steps:,} steps, so that the learning rate only rises; "
            f"--warmup_steps {n_steps // 10} would be a tenth of it"
        )
    for name, what in (("eval_interval", "report"), ("ckpt_interval", "checkpoint")):
        steps = getattr(config, name)
        if steps is not None and steps > n_steps:
            yield f"--{name} {steps}: this training has {n_steps:,} steps, and its only {what} is at the end"
    by_epochs = config.minutes is None and config.max_iters is None
    reports = n_steps // config.eval_interval if config.eval_interval else config.max_epochs if by_epochs else REPORTS
    if config.patience not in (DEFAULT.patience, FROM_BASE["patience"]) and config.patience >= reports:
        yield f"--patience {config.patience} cannot end this training of {n_steps:,} steps before its end"
    if config.total_batch_size is not None and per_step > n_tokens:
        yield f"--total_batch_size {config.total_batch_size}: a step reads all {n_tokens:,} tokens that are trained on"
    elif config.batch_size not in (DEFAULT.batch_size, FROM_BASE["batch_size"], 1) and config.batch_size > n_windows:
        yield f"--batch_size {config.batch_size}: a step reads all {n_windows:,} windows that are trained on"
