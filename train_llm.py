"""Step 2: train the model on a text; `python train_llm.py --help` tells more."""

from __future__ import annotations

import sys

from custom_llm.commands.train import get_training_config, main
from custom_llm.common.errors import run
from custom_llm.common.lazy import lazy

__all__ = ["TextDataset", "get_training_config", "main", "train_model"]  # noqa: F822 (some are imported when first used)

__getattr__ = lazy(
    __name__,
    TextDataset="custom_llm.data.dataset",
    train_model="custom_llm.training.loop",
)

if __name__ == "__main__":
    sys.exit(run(main))
