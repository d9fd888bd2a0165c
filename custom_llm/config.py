"""What a person decides: the architecture (`ModelConfig`) and the training run (`TrainConfig`).

Plain dataclasses without torch. Every field is a flag of the script it belongs to; fields with a `question` are
also asked at the terminal. Adding an option is adding a field here and using it where it matters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

NON_LINEARITIES = ("gelu", "relu")


def option(
    default: Any,
    help: str,
    *,
    question: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with what a command line and a prompt need to know about it.

    Args:
        default: value when nothing is said.
        help: one line for `--help`.
        question: the exact prompt, or None when the option is a flag only.
        low, high: inclusive bounds of a number.
        choices: the allowed words.
    """
    about = {"help": help, "question": question, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class ModelConfig:
    """The architecture. The first six fields are the tutorial's keys and enough on their own."""

    vocab_size: int = option(
        10_000,
        "tokens the model knows; training replaces it by the text's real number",
        question="Enter vocabulary size (e.g., 10000 for small models): ",
        low=1,
        high=10_000_000,
    )
    n_embd: int = option(
        256, "width of the model", question="Enter embedding dimension (e.g., 256): ", low=1, high=65_536
    )
    n_head: int = option(
        8,
        "attention heads; n_embd is a multiple of it",
        question="Enter number of attention heads (e.g., 8): ",
        low=1,
        high=1024,
    )
    n_layer: int = option(
        6,
        "transformer blocks",
        question="Enter number of transformer layers (e.g., 6): ",
        low=1,
        high=512,  # LLAMA_MAX_LAYERS of llama.cpp
    )
    block_size: int = option(
        128,
        "tokens the model sees at once",
        question="Enter max sequence length (e.g., 128): ",
        low=1,
        high=1_048_576,
    )
    dropout: float = option(
        0.1,
        "share of activations dropped in training",
        question="Enter dropout rate (e.g., 0.1): ",
        low=0.0,
        high=0.99,
    )
    non_linearity: str = option("gelu", "activation of the feed-forward layers", choices=NON_LINEARITIES)
    head_bias: bool = option(False, "give the output layer a bias")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.n_embd < 2 * self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is less than 2 for each of n_head {self.n_head}, llama.cpp's least")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build from the plain dict of `model_config.pth`; the six tutorial keys are required.

        Raises:
            ValueError: a missing, unknown or impossible key, by name.
        """
        required = ("vocab_size", "n_embd", "n_head", "n_layer", "block_size", "dropout")
        missing = [key for key in required if key not in values]
        if missing:
            raise ValueError(f"the model configuration lacks {', '.join(missing)}")
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"the model configuration has an unknown key: {', '.join(map(repr, unknown))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = option(
        32, "windows of text per step", question="Enter batch size (e.g., 32): ", low=1, high=1_048_576
    )
    learning_rate: float = option(
        0.0003,
        "peak learning rate, on AdamW's scale",
        question="Enter learning rate (e.g., 0.0003): ",
        low=1e-12,
        high=10.0,
    )
    max_epochs: int = option(
        5,
        "times the whole text is read",
        question="Enter number of epochs (e.g., 5): ",
        low=1,
        high=1_000_000,
    )
    dataset_path: str = option(
        "input.txt",
        "the text to learn from",
        question="Enter path to text dataset (e.g., 'input.txt'): ",
    )
    minutes: float | None = option(None, "train for this long instead of max_epochs", low=0.001, high=525_600.0)
    stride: int | None = option(
        None,
        "characters between the starts of two windows (default: block_size; 1 = overlapping windows)",
        low=1,
        high=1_048_576,
    )
    seed: int = option(1337, "seed of weights, order and sample", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Build from a plain dict, ignoring what is not an option of training."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def field_type(item: Any) -> tuple[type, bool]:
    """(type, may be None) of a config field: `int | None` is (int, True)."""
    name, _, optional = item.type.partition(" | ")
    return {"int": int, "float": float, "str": str, "bool": bool}[name], bool(optional)


def check_fields(config: Any) -> None:
    """Raise ValueError for the first field of the wrong type, out of its bounds or not among its choices."""
    for item in fields(config):
        check_value(item, getattr(config, item.name))


def check_value(item: Any, value: Any) -> None:
    """Raise ValueError, naming the field, when `value` cannot be the field's value."""
    kind, optional = field_type(item)
    if value is None and optional:
        return
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{item.name} {value!r} is not {in_words(kind)}")
    low, high, choices = (item.metadata.get(key) for key in ("low", "high", "choices"))
    if low is not None and not low <= value <= high:  # the negation also catches NaN
        raise ValueError(f"{item.name} {value!r} is not {in_words(kind)} from {low} to {high}")
    if choices and value not in choices:
        raise ValueError(f"{item.name} {value!r} is not one of {', '.join(choices)}")


def in_words(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[kind]
