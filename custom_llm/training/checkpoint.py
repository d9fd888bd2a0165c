"""The file that `train_llm.py --resume` goes on from, read: whole, in form, and of this training.

A checkpoint comes from a disk, and perhaps from somebody else. `form_of_state` says what stands where, and all of it is
looked at before any of it is used, or anything is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from custom_llm.common.errors import UserError
from custom_llm.common.files import beside
from custom_llm.common.steps import command
from custom_llm.config.training import TrainConfig
from custom_llm.model.archive import Label, load_file, to_bytes
from custom_llm.model.lora import trained_state
from custom_llm.training.loop import Trainer

VERSION = 5
AGAIN = "start anew without --resume"
# Options that say which training it is: together with model and text, files that agree in them can be taken for others.
IDENTITY = ("batch_size", "learning_rate", "optimizer", "seed", "lora", "train_layers")


@dataclass(frozen=True)
class Checkpoint:
    """What stands in the file."""

    config: dict[str, Any]  # the options of the training
    model: dict[str, Any]  # and of the model, as plain values
    text: str  # the key of the token ids
    trainer: dict[str, Any] = field(default_factory=dict)  # `Trainer.state_dict()`
    best_model: dict[str, torch.Tensor] | None = None  # weights of the lowest held-out loss; None: never measured
    record: dict[str, Any] | None = None  # `Record.state_dict()`
    version: int = VERSION
    training_id: str = ""  # in the label

    @property
    def is_partial(self) -> bool:
        """Whether training leaves some weights as they are, which are not in the file then."""
        return bool(self.config.get("lora") or self.config.get("train_layers"))

    def identify(self) -> str:
        """What is to stand as the same training in all its files; the same training has the same when it is repeated.

        >>> Checkpoint({name: 1 for name in IDENTITY}, {}, "text").identify()
        'c37a0b1bb6ba0edd'
        """
        what = (self.model, self.text, [self.config.get(name) for name in IDENTITY])
        return blake2b(repr(what).encode(), digest_size=8).hexdigest()

    def to_bytes(self) -> bytes:
        """The content of the file."""
        values = dict(vars(self))  # not asdict, which would copy every tensor
        return to_bytes(values, Label("checkpoint", values.pop("training_id")))


def checkpoint_path(model_path: str | Path) -> Path:
    """`trained_model.pth` → `trained_model.checkpoint.pth`."""
    return beside(model_path, ".checkpoint.pth")


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file; UserError where there is none, or it is damaged or of another version."""
    if not path.exists():
        raise UserError(
            f"{path} is not there: the first checkpoint is written after a minute, or --ckpt_interval steps, or when a "
            "training ends; start without --resume"
        )
    values, label = load_file(path, f"{command('train_llm')}, without --resume")
    fits = isinstance(values, dict) and all(name in values and form(values[name]) for name, form in TOP.items())
    if not fits or values.get("version") != VERSION:
        raise UserError(f"{path} is no checkpoint of a training, or of another version; {AGAIN}")
    try:
        TrainConfig(**values["config"])  # options may come and go
        return Checkpoint(**values, training_id=label.training)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is no checkpoint of this version ({error}); {AGAIN}") from None


# --- forms: a dict for its keys, a tuple for one after another, a list for any number of one form, else a predicate ---

MOST = 10**18  # of whatever is counted


def misfit(value: Any, form: Any, name: str = "") -> str | None:
    """The name of the first part of a value that is not of its form; None where all is.

    >>> misfit({"steps": -1, "losses": [0.5]}, {"steps": count, "losses": [amount]}, "state")
    'state.steps'
    """
    if isinstance(form, dict):
        if not isinstance(value, dict) or value.keys() != form.keys():
            return name
        parts = [(value[key], form[key], f"{name}.{key}") for key in form]
    elif isinstance(form, (list, tuple)):
        if not isinstance(value, (list, tuple)) or (isinstance(form, tuple) and len(value) != len(form)):
            return name
        forms = form if isinstance(form, tuple) else form * len(value)
        parts = [(*pair, f"{name}[{place}]") for place, pair in enumerate(zip(value, forms, strict=True))]
    else:
        return None if form(value) else name
    return next((found for part in parts if (found := misfit(*part)) is not None), None)


def count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value <= MOST


def number(value: Any) -> bool:
    """Also one that is not finite: of what was not measured."""
    return type(value) is float or (type(value) is int and abs(value) <= MOST)


def amount(value: Any) -> bool:
    return number(value) and math.isfinite(value) and 0 <= value <= MOST


def text(value: Any) -> bool:
    return isinstance(value, str)


def plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def maybe(form: Any) -> Callable[[Any], bool]:
    return lambda value: value is None or misfit(value, form) is None


def like(tensor: torch.Tensor) -> Callable[[Any], bool]:
    """Of the same shape and kind, and finite."""

    def fits(value: Any) -> bool:
        is_plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
        alike = is_plain and value.shape == tensor.shape and value.is_floating_point() == tensor.is_floating_point()
        return alike and value.is_complex() == tensor.is_complex() and bool(torch.isfinite(value).all())

    return fits


def some(form: Any) -> Callable[[Any], bool]:
    """A dict of any names with values of one form."""
    return lambda value: (
        isinstance(value, dict)
        and all(isinstance(name, str) and misfit(each, form) is None for name, each in value.items())
    )


TOP = {  # what the options and the weights are is looked at by those who know them
    "config": some(plain),
    "model": some(plain),
    "text": text,
    "trainer": some(lambda value: True),
    "best_model": maybe(some(lambda value: True)),
    "record": maybe({"tracker": text, "run": maybe(text), "untrained": maybe(text)}),
}


def form_of_state(trainer: Trainer) -> dict[str, Any]:
    """What `trainer.state_dict()` is like, at any time of any training of this model."""
    step, generator = trainer.step, torch.get_rng_state()
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    updated = [[p for group in each.param_groups for p in group["params"]] for each in step.optimizers]
    of_points = (
        count, amount, count, amount, number, number, number, number, maybe(number), maybe(number), maybe(text)
    )  # fmt: skip
    return {
        "step": {
            "model": {name: like(tensor) for name, tensor in trained_state(trainer.model).items()},
            "optimizers": tuple({"steps": count, "state": tuple(some(like(p)) for p in each)} for each in updated),
            "loads": tuple(map(like, step.expert_use.state_dict())),
            "average": maybe({"average": tuple(map(like, trained)), "updates": count}),
            "precision": lambda value: value in ("float32", "bfloat16"),
            "rows": maybe(lambda value: count(value, 1)),
        },
        "clock": {
            **dict.fromkeys(("steps", "epochs", "tokens", "batches"), count),
            **dict.fromkeys(("paused", "seconds", "reported"), amount),
            "points": lambda value: count(value, -1),
        },
        "sampler": {"before": like(generator), "read": count},
        "losses": {"total": amount, "tokens": count},
        "history": {"points": [of_points], "since": (amount, count, number, number, number)},
        "before": maybe({"held_out": amount, "general": amount}),
        "lowest": {"loss": number, "step": count, "epoch": count, "since": count, "last": number},
        # Of other devices than the CPU there are as many as there were.
        "random": [lambda value: isinstance(value, dict) and like(generator)(value.get("cpu"))],
        "threads": lambda value: count(value, 1),
    }
