"""The training run that a person decides on (`TrainConfig`): a plain dataclass without torch, a flag a field."""

from __future__ import annotations

import ast
import operator
from dataclasses import dataclass, fields
from typing import Any

from custom_llm.cli.fields import check_fields, option
from custom_llm.common.steps import install, step
from custom_llm.common.text import shown

CHARACTERS_PER_TOKEN = 8  # more than a token stands for in any ordinary text
LARGEST_COUNT = 10**15
LORA_ALPHA = 2  # times the rank
LORA_TARGETS = ("all", "attention", "feed_forward")
OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}  # fmt: skip


# Defaults of a training that starts from another model, in place of those below, and of one with LoRA as well. How they
# were found: docs/training.md.
BASE = "base"
FROM_BASE: dict[str, Any] = dict(
    tokenizer=BASE, batch_size=4, learning_rate=1e-4, max_epochs=3, optimizer="adamw", weight_decay=0.0, ema=0.0
)
WITH_LORA: dict[str, Any] = dict(learning_rate=1e-3)
BASE_WINDOW = 256  # tokens at most, of those that a base could read at once


def complete_from_base(values: dict[str, Any]) -> dict[str, Any]:
    """`values`, and what is right beside them where training starts from another model."""
    return {**FROM_BASE, **(WITH_LORA if values.get("lora") else {}), **values}


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    batch_size: int = option(
        32, "windows of text per step", question="Enter batch size (e.g., 32): ", low=1, high=1_048_576
    )
    learning_rate: float = option(
        0.0003, "peak learning rate, on AdamW's scale", question="Enter learning rate (e.g., 0.0003): ",
        low=1e-12, high=10.0,
    )  # fmt: skip
    max_epochs: int = option(
        5, "times the whole text is read", question="Enter number of epochs (e.g., 5): ", low=1, high=1_000_000
    )
    dataset_path: str = option(
        "input.txt",
        "the text to learn from: a file, a folder, a glob, several with commas, or a dataset by name",
        question="Enter path to text dataset (e.g., 'input.txt'): ",
    )
    encoding: str = option("utf-8", "encoding of files of text")
    text_field: str | None = option(
        None, "key or column of the text in .jsonl, .json, .csv, .parquet and datasets (default: text)"
    )
    clean: str = option(
        "none",
        "what to leave out; markdown: front matter, base64 and what tracks in links",
        choices=("none", "markdown"),
    )
    tokenizer: str = option(
        "char",
        "char: single characters; bpe: pieces of words, learnt from the text; or a pretrained tokenizer, by its folder "
        "or its name on the Hugging Face hub, such as gpt2; a base has its own",
    )
    vocab_size: int | None = option(
        None, f"tokens to learn for bpe (default: what {step('llm_model')} was told)", low=1, high=10_000_000
    )
    max_chars: int | None = option(None, "characters of the text to use at most", low=1, high=10**15)
    max_tokens: int | None = option(None, "tokens of the text to use at most", low=2, high=10**15)
    minutes: float | None = option(None, "train for this long instead of max_epochs", low=0.001, high=525_600.0)
    max_iters: int | None = option(None, "train for so many steps instead of max_epochs", low=1, high=10**12)
    total_batch_size: str | None = option(
        None, "tokens of a step, such as 2**15, read in several batches of batch_size windows (default: one batch)"
    )
    window: int | None = option(
        None, "tokens that are read at once (default: block_size; of a base, 256 at most)", low=1, high=1_048_576
    )
    lora: int | None = option(
        None, "train only small matrices of this rank beside those of a base, such as 16: less memory; 0: all weights",
        low=0, high=65_536,
    )  # fmt: skip
    lora_alpha: float | None = option(
        None, "what is learnt by --lora is multiplied by this / rank (default: twice the rank)", low=1e-6, high=1e6
    )
    lora_dropout: float = option(0.0, "share of what --lora reads that is left out in training", low=0.0, high=0.95)
    lora_targets: str = option("all", "layers that --lora adapts", choices=LORA_TARGETS)
    train_layers: int | None = option(
        None, "train only the last so many layers of a base, and the norm behind them", low=1, high=100_000
    )
    optimizer: str = option(
        "muon", "what follows the gradient; muon: for the matrices inside, AdamW for the rest",
        choices=("muon", "adamw"),
    )  # fmt: skip
    schedule: str = option(
        "cosine", "how the learning rate comes down after it has risen", choices=("cosine", "linear", "wsd", "constant")
    )
    warmup_steps: int | None = option(
        None, "steps in which the learning rate rises (default: 3 % of the training)", low=0, high=10**12
    )
    min_lr: float | None = option(None, "last learning rate (default: a tenth of the highest)", low=0.0, high=10.0)
    weight_decay: float = option(
        0.1, "how much the matrices inside shrink in a step, times the learning rate", low=0.0, high=10.0
    )
    grad_clip: float = option(1.0, "longest gradient; longer ones are shortened; 0: none are", low=0.0, high=1e9)
    ema: float = option(
        0.98, "how much of the averaged weights stays in a step; the average is the model; 0: no average",
        low=0.0, high=0.9999,
    )  # fmt: skip
    eval_interval: int | None = option(
        None, "steps between two looks at the held-out text (default: each epoch; or 20 in all)", low=1, high=10**12
    )
    patience: int = option(
        5, "reports without a new lowest held-out loss after which the training ends; 0: never", low=0, high=10**12
    )
    ckpt_interval: int | None = option(
        None, "steps between two checkpoints (default: a minute, or more if they take long)", low=1, high=10**12
    )
    sample_tokens: int = option(
        100, "tokens of the text that the model writes at a report (0: none)", low=0, high=100_000
    )
    tracker: str = option(
        "none", f"where figures go besides the files beside the model ({install('track')})",
        choices=("none", "tensorboard", "wandb"),
    )  # fmt: skip
    stride: int | None = option(
        None, "characters between the starts of two windows (default: block_size; 1 = overlapping windows)",
        low=1, high=1_048_576,
    )  # fmt: skip
    compile: bool = option(False, "compile the model before it trains, which takes a minute and pays on a GPU")
    act_recomp: bool = option(
        False, "compute activations again for the backward pass instead of keeping them: less memory, a third more time"
    )
    precision: str = option(
        "auto", "of products; auto: bfloat16 where that is clearly faster now", choices=("auto", "float32", "bfloat16")
    )
    threads: int | None = option(None, "CPU threads (default: as many as are fastest now)", low=1, high=4096)
    strategy: str = option(
        "ddp",
        "with torchrun; ddp: each process has the whole model; fsdp: a part of every weight, for a model too large",
        choices=("ddp", "fsdp"),
    )
    seed: int = option(1337, "seed of weights, order and sample", low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.vocab_size is not None and self.tokenizer != "bpe":
            raise ValueError(f"vocab_size {self.vocab_size} has no meaning with tokenizer {self.tokenizer}; take bpe")
        if self.minutes is not None and self.max_iters is not None:
            raise ValueError(f"minutes {self.minutes} and max_iters {self.max_iters} both end the training; give one")
        if self.min_lr is not None and self.min_lr > self.learning_rate:
            raise ValueError(f"min_lr {self.min_lr} is above learning_rate {self.learning_rate}; give a lower one")
        if not self.lora:
            for item in (item for item in fields(self) if item.name.startswith("lora_")):
                value = getattr(self, item.name)
                if value != item.default:
                    raise ValueError(f"{item.name} {value} has no meaning without lora; give lora 16")
        self._total_batch_size()
        if not self.tokenizer:
            raise ValueError("tokenizer is empty; give char, bpe, or the folder or name of a pretrained one")

    @property
    def lora_scale(self) -> float:
        """What the products of LoRA's matrices are multiplied by; 0 without LoRA."""
        return (self.lora_alpha or LORA_ALPHA * self.lora) / self.lora if self.lora else 0.0

    @property
    def is_partial(self) -> bool:
        """Whether some weights stay as they are."""
        return bool(self.lora or self.train_layers)

    def accumulation(self, block_size: int, world_size: int = 1) -> int:
        """Batches of a step, of all processes together; ValueError where total_batch_size is not so many whole ones."""
        batch = self.batch_size * block_size
        total = self._total_batch_size() or batch * world_size
        if total % (batch * world_size):
            each = f" in each of {world_size} processes" if world_size > 1 else ""
            nearest = max(1, round(total / (batch * world_size))) * batch * world_size
            raise ValueError(
                f"total_batch_size {self.total_batch_size} is no multiple of the {batch * world_size} tokens in a "
                f"batch of {self.batch_size} windows of {block_size}{each}; give {nearest}"
            )
        return total // batch

    def _total_batch_size(self) -> int | None:
        if self.total_batch_size is None:
            return None
        try:
            return parse_count(self.total_batch_size)
        except ValueError as error:
            raise ValueError(f"total_batch_size {shown(self.total_batch_size)} {error}") from None

    @property
    def most_characters(self) -> int | None:
        """Characters of the text to read at most, since a token stands for few; None: all."""
        per_token = 1 if self.tokenizer == "char" else CHARACTERS_PER_TOKEN
        bounds = [self.max_chars, self.max_tokens and self.max_tokens * per_token]
        return min(filter(None, bounds), default=None)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Build from a plain dict, ignoring what is not an option of training."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def parse_count(text: str) -> int:
    """A whole number of at least 1, or + - * // ** of such, read without running anything.

    ValueError where it is none; the message follows its name and text.

    >>> parse_count("4 * 2**15")
    131072
    """
    try:
        if len(text) > 100:
            raise ValueError
        value = _evaluate(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        raise ValueError("is not a whole number, or + - * // ** of such, like 2**15") from None
    if not 1 <= value <= LARGEST_COUNT:
        raise ValueError(f"is not from 1 to {LARGEST_COUNT:.0e}")
    return value


def _evaluate(node: ast.AST) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if not isinstance(node, ast.BinOp):
        raise ValueError
    left, right = _evaluate(node.left), _evaluate(node.right)
    if isinstance(node.op, ast.Pow) and not (0 <= right <= 64 and abs(left) <= LARGEST_COUNT):
        raise ValueError  # only powers of powers take long
    return OPERATORS[type(node.op)](left, right)
