"""Where a model comes from: what its training leaves in `model_config.pth` for the cards that go with the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

_KINDS = {"int": (int,), "float": (int, float), "str": (str,)}


@dataclass(frozen=True)
class Provenance:
    """The training of a model; None or an empty text is not known."""

    dataset: str = ""  # the text by its name, without the folders it is in
    hub_dataset: str = ""  # owner/name of it, if it is from the Hugging Face hub
    characters: int | None = None  # of the whole text
    tokens: int | None = None
    held_out_tokens: int | None = None  # at its end, which were not trained on
    tokenizer: str = ""  # char, bpe, or the name of a pretrained one
    n_parameters: int | None = None
    epochs: float | None = None  # counts parts of one, too
    steps: int | None = None
    kept_step: int | None = None  # at which the held-out loss was lowest, from which the weights are
    tokens_seen: int | None = None
    minutes: float | None = None
    batch_size: int | None = None  # windows in a step
    learning_rate: float | None = None  # the highest
    optimizer: str = ""
    schedule: str = ""
    loss: float | None = None  # of training at its end, in nats per token
    held_out_loss: float | None = None  # the lowest, in nats per token
    bits_per_byte: float | None = None  # the same for each byte of the held-out text in UTF-8
    torch: str = ""  # its version
    device: str = ""  # cpu, cuda or mps
    text: str = ""  # what the model wrote when it was finished

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain values."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def from_dict(cls, values: object) -> Provenance:
        """What `to_dict` gave; what is of a wrong kind is not known, since no model is lost for a note about it."""
        if not isinstance(values, dict):
            return cls()
        kept = {}
        for item in fields(cls):
            value = values.get(item.name)
            kinds = _KINDS[str(item.type).partition(" | ")[0]]
            is_fit = isinstance(value, kinds) and not isinstance(value, bool)
            if is_fit and (isinstance(value, str) or (math.isfinite(value) and value >= 0)):
                kept[item.name] = value
        return cls(**kept)
