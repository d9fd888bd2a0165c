"""Whether a model and a text go together, said before a minute is spent on them."""

from __future__ import annotations

import math

from custom_llm.common.steps import command
from custom_llm.config.training import TrainConfig

STEPS_AT_LEAST = (
    360  # after so many, the first model of the questions had learnt what it could from 80 kB (docs/training.md)
)
MOST_EPOCHS = 100
LARGE = 10  # parameters for each token of the text, from which on a smaller model learns more of it in less time
SMALL = 1 / 50
SMALLEST = 120_000  # parameters, about, of the smallest model that is chosen for a text
MINUTES = 5.0  # that are suggested


def enough_epochs(steps_per_epoch: int) -> int:
    """Epochs until there is little left to learn: five, or more where they would be a few steps only.

    >>> enough_epochs(246), enough_epochs(18), enough_epochs(1)
    (5, 20, 100)
    """
    return max(TrainConfig.max_epochs, min(MOST_EPOCHS, math.ceil(STEPS_AT_LEAST / steps_per_epoch)))


def describe_match(n_parameters: int, n_tokens: int, dataset_path: str, minutes: float | None) -> str:
    """A sentence about a model and the tokens that it is to learn, with the command that would do better."""
    size = f"{n_parameters / 1e6:.2f}M parameters for {n_tokens:,} tokens of text"
    flags = ("--preset", "auto", "--dataset_path", dataset_path, "--minutes", f"{minutes or MINUTES:g}")
    better = command("llm_model", *flags)
    if n_parameters > LARGE * n_tokens and n_parameters < 2 * SMALLEST:
        return f"{size}: any model soon memorises so short a text; more text helps most"
    if n_parameters > LARGE * n_tokens:
        return (
            f"{size}, {n_parameters / n_tokens:.0f} for each: so large a model learns slowly from so short a text, and "
            f"then memorises it. One that fits it learns more, and sooner: {better}"
        )
    if n_parameters < SMALL * n_tokens:
        return (
            f"{size}: a larger model could learn more of so long a text. If you have the time for one, such as "
            f"{minutes or MINUTES:g} minutes: {better}"
        )
    return f"{size}: model and text go together"
