"""Where a model comes from: what its training leaves in `model_config.pth` for the cards that go with the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

_KINDS = {"int": (int,), "float": (int, float), "str": (str,)}


@dataclass(frozen=True)
class Provenance:
    """The training of a model; None or an empty text is not known.

    Attributes:
        dataset: the text by its name, without the folders it is in.
        hub_dataset: owner/name of it, if it is from the Hugging Face hub.
        characters, tokens: of the whole text.
        held_out_tokens: at its end, which were not trained on.
        tokenizer: char, bpe, or the name of a pretrained one.
        epochs, steps, tokens_seen, minutes: of training; epochs count parts of one, too.
        kept_step: the step at which the held-out loss was lowest, from which the weights are.
        batch_size: windows in a step.
        learning_rate: the highest.
        loss: of training at its end, in nats per token.
        held_out_loss: the lowest, in nats per token.
        bits_per_byte: the same for each byte of the held-out text in UTF-8.
        torch: the version of it.
        device: cpu, cuda or mps.
        text: what the model wrote when it was finished.
    """

    dataset: str = ""
    hub_dataset: str = ""
    characters: int | None = None
    tokens: int | None = None
    held_out_tokens: int | None = None
    tokenizer: str = ""
    n_parameters: int | None = None
    epochs: float | None = None
    steps: int | None = None
    kept_step: int | None = None
    tokens_seen: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    optimizer: str = ""
    schedule: str = ""
    loss: float | None = None
    held_out_loss: float | None = None
    bits_per_byte: float | None = None
    torch: str = ""
    device: str = ""
    text: str = ""

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
