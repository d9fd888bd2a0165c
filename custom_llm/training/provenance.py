"""What the cards of a model say of its training, without what its text's name would tell of a person."""

from __future__ import annotations

import math
import os
from pathlib import Path
from statistics import fmean

import torch

from custom_llm.data.hub.named import PREFIX, find_dataset
from custom_llm.data.token_file import Tokens
from custom_llm.model.files import Provenance
from custom_llm.training.loop import Trainer

LAST = 0.05  # share of the training whose mean loss is the loss at its end
MOST_TEXT = 1000  # characters of what the model wrote
MOST_NAMES = 5  # of the files of a text


def provenance(trainer: Trainer, source: tuple[str, str], tokens: Tokens, text: str = "") -> Provenance:
    """The training as far as it has come, on `tokens` of `source` (see `public_name`); the model writes `text`."""
    config, clock, best, history = trainer.config, trainer.clock, trainer.best, trainer.history
    last = [point.loss for point in history.points if point.tokens > (1 - LAST) * clock.tokens]
    known = math.isfinite(best.loss)
    return Provenance(
        *source,
        characters=tokens.n_characters,
        tokens=len(tokens.ids),
        held_out_tokens=clock.n_held_out,
        tokenizer=_last_part(config.tokenizer) if os.path.lexists(config.tokenizer) else config.tokenizer,
        n_parameters=trainer.model.n_parameters(),
        epochs=round(clock.epochs + clock.batches / len(trainer.loader), 2),
        steps=clock.steps,
        kept_step=best.step if known else None,
        tokens_seen=clock.tokens,
        minutes=round(clock.seconds / 60, 3),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        schedule=config.schedule,
        loss=fmean(last) if last else None,
        held_out_loss=best.loss if known else None,
        bits_per_byte=history.bits_per_byte(best.loss) if known else None,
        torch=str(torch.__version__),
        device=trainer.step.device.type,
        text=text[:MOST_TEXT],
    )


def public_name(spec: str) -> tuple[str, str]:
    """How others may know what a person named as the text, and owner/name of it on the hub, if it is from there.

    >>> public_name("/home/mia/letters/2024.txt,notes/"), public_name("hf:roneneldan/TinyStories")
    (('2024.txt, notes', ''), ('roneneldan/TinyStories', 'roneneldan/TinyStories'))
    """
    dataset = find_dataset(spec)
    if dataset is not None and not Path(dataset.repo).is_absolute():
        return spec.removeprefix(PREFIX), dataset.repo
    if dataset is not None or os.path.lexists(spec):
        return _last_part(dataset.repo if dataset is not None else spec), ""
    names = [_last_part(part) for part in map(str.strip, spec.split(",")) if part]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more, ""


def _last_part(path: str) -> str:
    """The name of a file or folder; `.` by the name it has."""
    return Path(os.path.abspath(path)).name  # noqa: PTH100 (resolve would follow links)
