"""`python -m custom_llm` is `custom-llm`, also for `torchrun -m custom_llm train`."""

from __future__ import annotations

import sys

from custom_llm.commands.console import start

if __name__ == "__main__":
    sys.exit(start())
