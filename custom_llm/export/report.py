"""What a person sees of the files as they are written: one row each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from custom_llm.export.gguf.quantize import Shapes, fallback_note
from custom_llm.export.proof import Parity, Reference, check_bound
from custom_llm.export.read_back import Agreement, Original

HEADERS = {
    Reference: f"{'KL to PyTorch':>16}{'max logit diff':>16}{'same top-1 (text, random)':>28}",
    Original: f"{'tensors':>10}{'tokens':>10}{'max weight diff':>18}{'relative error':>17}",
    type(None): "",
}

logger = logging.getLogger("custom_llm")


@dataclass(frozen=True)
class FileReport:
    """What was measured of a file; `proof` is None where it was not held against the model."""

    path: Path
    quant_type: str
    n_bytes: int
    proof: Parity | Agreement | None


class FileTable:
    """Checks each finished file against the trained model before it gets its name, and prints a row about it."""

    def __init__(self, expected: Reference | Original | None, shapes: Shapes) -> None:
        """`expected`: what to hold files against (None: nothing); `shapes`: of their tensors (`ExportPlan.shapes`)."""
        self.expected = expected
        self._shapes = shapes
        self.rows: list[FileReport] = []

    def check(self, path: Path, quant_type: str, name: Path) -> None:
        """Print the row of the file at `path`, which will be `name`. Raises UserError if it is another model."""
        if note := fallback_note(quant_type, path, self._shapes):
            print(f"note: {note}")
        n_bytes, proof = path.stat().st_size, None
        row = f"{name!s:<32}{n_bytes / 1e6:>7.2f} MB"
        if isinstance(self.expected, Reference):
            proof = p = self.expected.compare(path)
            check_bound(name, quant_type, p)
            row += f"{p.kl:>16.1e}{p.max_difference:>16.4f}{p.top1_text:>18.1%}{p.top1_random:>10.1%}"
        elif self.expected:
            proof = a = self.expected.compare(path, name)
            row += f"{a.n_tensors:>10}{a.n_tokens:>10}{a.max_difference:>18.2g}{a.relative_error:>17.3%}"
        if not self.rows:
            print(f"{'file':<32}{'size':>10}{HEADERS[type(self.expected)]}")
        self.rows.append(FileReport(name, quant_type, n_bytes, proof))
        print(row, flush=True)
        logger.info(row)
