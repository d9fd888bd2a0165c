"""Step 4: write text; `python inference_gguf.py --help` tells more."""

from __future__ import annotations

import sys

from custom_llm.commands.write import main, run_inference
from custom_llm.common.errors import run
from custom_llm.common.machine import monitor_resources

__all__ = ["main", "monitor_resources", "run_inference"]

if __name__ == "__main__":
    sys.exit(run(main))
