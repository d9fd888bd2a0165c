"""Step 3: a Hugging Face directory and GGUF files; `python convert_to_gguf.py --help` tells more."""

from __future__ import annotations

import sys

from custom_llm.commands.convert import main
from custom_llm.common.errors import run
from custom_llm.common.lazy import lazy

LATER = {
    "GPTConfig": "custom_llm.export.huggingface.transformers_classes",
    "GPTPreTrainedModel": "custom_llm.export.huggingface.transformers_classes",
    "convert_to_gguf": "custom_llm.export.pipeline",
    "export_to_hf": "custom_llm.export.pipeline",
}
__all__ = ["main", *LATER]
__getattr__ = lazy(__name__, LATER)

if __name__ == "__main__":
    sys.exit(run(main))
