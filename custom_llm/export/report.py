"""What a person sees of the files as they are written: one row each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from custom_llm.export.gguf.quantize import fallback_note
from custom_llm.export.proof import Parity, Reference, check_bound

# The share of positions whose likeliest token is PyTorch's, on the text and on random tokens.
TOP1 = "same top-1 (text, random)"
HEADER = f"{'file':<32}{'size':>10}{'KL to PyTorch':>16}{'max logit diff':>16}{TOP1:>28}"

logger = logging.getLogger("custom_llm")


@dataclass(frozen=True)
class Row:
    """What was measured of a file; `parity` is None where it was not held against PyTorch."""

    path: Path
    quant_type: str
    n_bytes: int
    parity: Parity | None


class Report:
    """Checks each finished file against PyTorch before it gets its name, and prints a row about it.

    Attributes:
        rows: of the files so far.
    """

    def __init__(self, reference: Reference | None, shapes: dict[str, tuple[int, ...]]) -> None:
        """Args:
        reference: what to hold the files against; None only reports their size.
        shapes: of the files' tensors (`ExportPlan.shapes`).
        """
        self.reference = reference
        self._shapes = shapes
        self.rows: list[Row] = []

    def check(self, path: Path, quant_type: str, name: Path) -> None:
        """Print the row of the file at `path`, which is to be called `name`.

        Raises:
            UserError: a file of an exact type is not the trained model.
        """
        note = fallback_note(quant_type, path, self._shapes)
        if note:
            print(f"note: {note}")
        n_bytes, parity = path.stat().st_size, None
        row = f"{name!s:<32}{n_bytes / 1e6:>7.2f} MB"
        if self.reference:
            parity = self.reference.compare(path)
            check_bound(name, quant_type, parity)
            row += (
                f"{parity.kl:>16.1e}{parity.max_difference:>16.4f}{parity.top1_text:>18.1%}{parity.top1_random:>10.1%}"
            )
        if not self.rows:
            print(HEADER if self.reference else HEADER[:42])
        self.rows.append(Row(name, quant_type, n_bytes, parity))
        print(row, flush=True)
        logger.info(row)
