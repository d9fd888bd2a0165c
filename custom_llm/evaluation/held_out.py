"""The text that models are evaluated on, and the text they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.config.training import TrainConfig
from custom_llm.data.choose import choose_corpus
from custom_llm.data.sources import Corpus
from custom_llm.data.token_file import open_tokens
from custom_llm.evaluation.models import Scorer
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.cut import up_to
from custom_llm.tokenizer.load import recipe_of

LOOKED_AT = 1 << 20  # characters of a long text that are searched for what a model does not know
DECODED = 1 << 18  # tokens at a time
MOST_PER_TOKEN = 64  # characters, on average
MOST_IN_MEMORY = 1 << 28  # bytes of a text that is encoded in one go


@dataclass(frozen=True)
class HeldOutText:
    """A text that no model has learnt from."""

    name: str  # what it is, for a person
    ids: list[int]  # in the tokens of the models
    unknown: list[str]  # characters that are in it and not in their vocabulary; they are left out
    # Reads the rest of the dataset, piece by piece, and tells how many tokens that were; None where it is not known.
    training: Callable[[Callable[[int], object]], Iterator[str]] | None = None

    def __post_init__(self) -> None:
        if len(self.ids) < 2:
            raise UserError(f"{self.name}: a single token is no text to evaluate on; give more of it")


def whole_text(model: Scorer, corpus: Corpus, max_tokens: int) -> HeldOutText:
    """All of a text, for a model of these tokens; of a very long one more than `max_tokens` from its beginning.

    Raises UserError when it cannot be read, the model knows none of it, or it is a single token.
    """
    text = _readable("".join(up_to((1 + max_tokens) * MOST_PER_TOKEN, corpus.read())), model)
    ids = model.encode(text)
    if not ids:
        raise UserError(f"{corpus.name}: {model.path} knows none of its characters; give the kind of text it learnt")
    return HeldOutText(corpus.name, ids, _unknown(text, ids, model))


def held_out_tenth(model: Scorer, corpus: Corpus, cache: Path, max_tokens: int | None = None) -> HeldOutText:
    """The part of a dataset that training with it holds out, for a model of these tokens.

    cache: the folder for the encoded text. max_tokens: of the dataset, after which the rest was left out in training.
    Raises UserError as `whole_text`.
    """
    import torch

    from custom_llm.data.dataset import HELD_OUT, HELD_OUT_TOKENS, TextDataset

    beginning = _readable("".join(up_to(LOOKED_AT, corpus.read())), model)
    unknown = _unknown(beginning, model.encode(beginning), model)
    if model.tokenizer is not None:
        tokens = open_tokens(corpus, recipe_of(model.tokenizer), cache, max_tokens)
        dataset = TextDataset.of_tokens(tokens, model.window)
    elif corpus.size > MOST_IN_MEMORY:
        raise UserError(
            f"{corpus.name} is long; give --model trained_model.pth as well, whose tokens of it are in a file"
        )
    else:
        text = _readable(END_OF_TEXT + "".join(corpus.read()), model)
        dataset = TextDataset(" ", model.window)  # of which only the ids are needed
        dataset.data = torch.tensor(model.encode(text)[:max_tokens])
    ids = dataset.split_off(HELD_OUT, HELD_OUT_TOKENS).tolist()

    def training(on_tokens: Callable[[int], object]) -> Iterator[str]:
        for start in range(0, len(dataset.data), DECODED):  # a character that two parts share is lost
            yield model.text_of(dataset.data[start : start + DECODED].tolist())
            on_tokens(start)

    return HeldOutText(f"the held-out end of {corpus.name}", ids, unknown, training)


def training_held_out(model: Scorer, training: TrainConfig, cache: Path) -> HeldOutText:
    """What the training of these options held out; see `held_out_tenth`."""
    corpus = choose_corpus(
        training.dataset_path, cache, encoding=training.encoding, field=training.text_field,
        max_chars=training.most_characters, clean=training.clean,
    )  # fmt: skip
    return held_out_tenth(model, corpus, cache, training.max_tokens)


def _readable(text: str, model: Scorer) -> str:
    """`text` with what separates documents as the model spells it."""
    return text.replace(END_OF_TEXT, model.separator if model.end_of_text >= 0 else END_OF_TEXT)


def _unknown(text: str, ids: Sequence[int], model: Scorer) -> list[str]:
    return sorted(set(text) - set(model.text_of(ids)))
