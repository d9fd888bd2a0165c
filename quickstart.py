"""All four steps in one go; `python quickstart.py --help` tells more."""

from __future__ import annotations

import sys

from custom_llm.commands.quickstart import main
from custom_llm.common.errors import run

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run(main))
