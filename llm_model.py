"""Step 1: what the model looks like; `python llm_model.py --help` tells more."""

from __future__ import annotations

import sys

from custom_llm.commands.model import get_user_config, main
from custom_llm.common.errors import run
from custom_llm.common.lazy import lazy

LATER = {
    "GPTLanguageModel": "custom_llm.model",
    "MultiHeadSelfAttention": "custom_llm.model",
    "TransformerBlock": "custom_llm.model",
}
__all__ = ["get_user_config", "main", *LATER]
__getattr__ = lazy(__name__, LATER)

if __name__ == "__main__":
    sys.exit(run(main))
