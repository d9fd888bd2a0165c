"""What the files of a model say about it in words: its name, whose it is, what it learnt from, how well, an example."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they import torch
    from custom_llm.model.files import Provenance, SavedConfig

KEY = "custom_llm_about"  # in config.json
MOST_LINE, MOST_EXAMPLE = 200, 300  # characters
PACKED = (".gz", ".bz2", ".xz", ".zst")
_JOINS = "\u200c\u200d"  # unseen, but needed by Persian, Hindi and emoji


@dataclass(frozen=True)
class About:
    """The words; empty ones are not written."""

    name: str = ""  # its title
    author: str = ""  # as the person gave it, and so the license
    license: str = ""
    description: str = ""  # a sentence
    dataset: str = ""  # the text it learnt from, by name
    training: str = ""  # how long it was trained and how well it did, in a line
    example: str = ""  # what it wrote when it was finished

    def to_dict(self) -> dict[str, str]:
        """Those that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, values: object) -> About:
        """What stands in a config.json, which anybody may have written."""
        if not isinstance(values, dict):
            return cls()
        texts = {item.name: values[item.name] for item in fields(cls) if isinstance(values.get(item.name), str)}
        example = clean_text(texts.pop("example", ""))
        return cls(**{name: clean_line(value) for name, value in texts.items()}, example=example)

    def to_gguf(self) -> dict[str, str | int]:
        """Key of a GGUF file → value, but for `general.name`, which every writer of such files asks for."""
        texts = {
            "general.author": self.author,
            "general.license": self.license,
            "general.description": self.description,
            "general.dataset.0.name": self.dataset,
            "custom_llm.training": self.training,
            "custom_llm.example": self.example,
        }
        count = {"general.dataset.count": 1} if self.dataset else {}
        return {**count, **{key: text for key, text in texts.items() if text}}


def about_model(saved: SavedConfig, n_parameters: int, name: str = "", author: str = "", license: str = "") -> About:
    """The words about a trained model. Of its training text nothing is in them but the name.

    The description is, for example, `A language model of 0.37 M parameters over 56 characters, trained from scratch on
    stories.txt.` One that started from a base has the license of that, where no other is given.
    """
    origin = saved.training
    dataset = clean_line(origin.dataset)
    units = "characters" if (saved.tokenizer or {}).get("kind") == "char" else "tokens"
    if saved.base is None:
        start = "trained from scratch"
    else:
        start = f"{'continued ' if dataset else ''}from {saved.base.name}"
        license = license or saved.base.license
    description = clean_line(
        f"A language model of {in_millions(n_parameters)} parameters over {saved.model.vocab_size:,} {units}, "
        f"{start}{' on ' if dataset else ''}{dataset}."
    )
    return About(name, author, license, description, dataset, describe_training(origin), clean_text(origin.text))


def title_of(dataset: str) -> str:
    """What a model is called after the name of its text, of several the first; empty where there is no word in it.

    >>> title_of("my notes.txt, b.md"), title_of("owner/tales:config"), title_of("run-0.1.txt.gz"), title_of("*.md")
    ('my notes', 'tales', 'run-0.1', '')
    """
    path = PurePosixPath(clean_line(dataset).partition(", ")[0].partition(":")[0])
    stem = PurePosixPath(path.stem).stem if path.suffix in PACKED else path.stem
    return stem if first_word(stem) and "*" not in stem else ""


def first_word(text: str) -> str:
    """The first letters or digits of a text that stand together, up to 20, for a prompt that the model can read."""
    word = re.search(r"[^\W_]{1,20}", text)
    return word[0] if word else ""


def first_words(text: str) -> str:
    """The first few words of a text, for a model that continues sentences.

    >>> first_words("Before we proceed any further, hear me speak.")
    'Before we proceed any further, hear'
    """
    return clean_line(" ".join(text.strip().partition("\n")[0].split()[:6]))


def describe_training(origin: Provenance) -> str:
    """For example `3 epochs of 0.4 M characters; held-out loss 0.19 (0.28 bits per byte)`.

    Without the time it took, so that the same training gives the same file.
    """
    parts = []
    if origin.epochs is not None:
        parts.append(f"{origin.epochs:.3g} epoch" + ("" if origin.epochs == 1 else "s"))
    if origin.characters is not None:
        parts.append(f"of {in_millions(origin.characters)} characters")
    line = " ".join(parts)
    if origin.held_out_loss is not None:
        bits = "" if origin.bits_per_byte is None else f" ({origin.bits_per_byte:.2f} bits per byte)"
        line += f"{'; ' if line else ''}held-out loss {origin.held_out_loss:.2f}{bits}"
    return line


def in_millions(number: int) -> str:
    """371000 as '0.37 M', 20013 as '20,013'."""
    return f"{number / 1e6:,.{2 if number < 1e6 else 1}f} M" if number >= 1e5 else f"{number:,}"


def clean_line(text: str) -> str:
    """`text` in one line of what can be seen, cut where it is long."""
    line = " ".join("".join(char if _is_seen(char) else " " for char in text[: 10 * MOST_LINE]).split())
    return line if len(line) <= MOST_LINE else line[: MOST_LINE - 1] + "…"


def clean_text(text: str) -> str:
    """`text` with its line breaks, without what steers terminals or ends C's texts, cut where it is long."""
    text = text[:MOST_EXAMPLE]
    return "".join(char if char in "\n\t" or _is_seen(char) else "\N{REPLACEMENT CHARACTER}" for char in text).strip()


def parse_line(text: str) -> str:
    """A value of --name, --author or --license. Raises ArgumentTypeError when it is not a short line."""
    if len(text) > MOST_LINE:
        raise argparse.ArgumentTypeError(f"has {len(text):,} characters; give at most {MOST_LINE}")
    unseen = next((char for char in text if not _is_seen(char)), None)
    if unseen is not None:
        raise argparse.ArgumentTypeError(f"has {unseen!a} in it; give one line of plain text")
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give a text, or leave the flag out")
    return text.strip()


def _is_seen(char: str) -> bool:
    return char.isprintable() or char in _JOINS or char in "\u00a0\u3000"
