"""Step 2: train the model on a text; `python train_llm.py --help` tells more."""

from __future__ import annotations

import sys

from custom_llm.commands.train import get_training_config, main
from custom_llm.common.errors import run
from custom_llm.common.lazy import lazy

LATER = {
    "TextDataset": "custom_llm.data.dataset",
    "train_model": "custom_llm.training.loop",
}
__all__ = ["get_training_config", "main", *LATER]
__getattr__ = lazy(__name__, LATER)

if __name__ == "__main__":
    sys.exit(run(main))
