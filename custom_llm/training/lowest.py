"""The lowest held-out loss of a training, after which it learns its text by heart."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Lowest:
    """What the reports of a training have come to.

    Attributes:
        loss: the lowest held-out loss, in nats per token.
        step, epoch: when it was reported; the epoch is the one that was under way, from 1.
        since: reports after that one.
        last: the latest held-out loss.
    """

    loss: float = math.inf
    step: int = 0
    epoch: int = 0
    since: int = 0
    last: float = math.inf

    def add(self, loss: float, step: int, epoch: int) -> bool:
        """Count a report, and say whether its loss is the lowest so far."""
        self.last = loss
        if loss < self.loss:
            self.loss, self.step, self.epoch, self.since = loss, step, epoch, 0
            return True
        self.since += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(Lowest(**state).__dict__)
