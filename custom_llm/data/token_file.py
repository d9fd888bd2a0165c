"""Text as token ids in a file, so that a text of any size trains in little memory.

A text is encoded once; the file is found again by what the ids depend on: the content, how it is read, and the
tokenizer. It is NumPy's .npy format in the narrowest type that holds the vocabulary, and beside it stands a .json with
the tokenizer.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from custom_llm.common.errors import UserError
from custom_llm.common.files import replacing
from custom_llm.common.notes import warn
from custom_llm.common.progress import Progress
from custom_llm.data.cache import content_digest, file_state, make_folder, mark_used
from custom_llm.data.ids import Ids
from custom_llm.data.readers import LeftOut
from custom_llm.data.sources import Corpus
from custom_llm.data.text import OnRead
from custom_llm.tokenizer.base import END_OF_TEXT, Recipe, Tokenizer
from custom_llm.tokenizer.cut import rechunk
from custom_llm.tokenizer.load import load_tokenizer

VERSION = 2  # of all that turns files into ids; a new one makes the old token files be forgotten
PART = 1 << 20  # characters encoded at a time
CHECKED = 1 << 25  # ids whose checksum is taken in one go
SAMPLE_CHARACTERS = 4096  # from the beginning of the text
# What reading a damaged file raises.
DAMAGED = (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, OverflowError, RecursionError)
SECONDS_UNSEEN = 1.0  # work that takes less shows no progress


@dataclass(frozen=True)
class Tokens:
    """An encoded text; before each document stands what separates it from the one before."""

    ids: Ids | np.ndarray  # (n,) of uint8, uint16 or int32
    tokenizer: Tokenizer  # which made them
    n_characters: int  # that the ids stand for
    sample: str  # the beginning of the text
    key: str = ""  # differs where the ids do
    left_out: str = ""  # what was no text in the files, for a person


def open_tokens(corpus: Corpus, recipe: Recipe, cache: Path, max_tokens: int | None = None) -> Tokens:
    """The first `max_tokens` ids of a text, encoded now unless they are in the cache already.

    UserError where the text cannot be read, there is nothing to learn in it, no tokenizer can be made of it, or the
    ids cannot be written.
    """
    folder = make_folder(cache / "tokens")
    before = [file_state(path) for path in corpus.files]
    with _shown("looking at", corpus) as on_read:
        digest = content_digest(corpus.files, folder, on_read)
    depends_on = (VERSION, digest, corpus.settings(), recipe.key, max_tokens)
    path = folder / f"{blake2b(repr(depends_on).encode(), digest_size=16).hexdigest()}.npy"
    found = _open(path)
    if found is not None:
        return _telling(found, corpus)
    with _shown("finding the tokens of", corpus) as on_read:
        tokenizer = recipe.make(corpus.read(on_read))
    with _shown("encoding", corpus) as on_read:
        _encode(corpus, on_read, tokenizer, path, max_tokens)
    if before != [file_state(path) for path in corpus.files]:
        path.unlink(missing_ok=True)
        raise UserError(f"{corpus.name} has changed while it was read; start again")
    return _telling(_open(path), corpus)


def _telling(tokens: Tokens | None, corpus: Corpus) -> Tokens | None:
    """The same tokens; what was no text in their files is said."""
    if tokens is not None and tokens.left_out:
        warn(f"{corpus.name}: {tokens.left_out}")
    return tokens


def _open(path: Path) -> Tokens | None:
    """What was encoded into `path`; None if there is nothing, or it is damaged."""
    about = path.with_suffix(".json")
    try:
        values = json.loads(about.read_bytes())
        if values.pop("checksum") != _checksum(values):
            return None
        ids = Ids.open(path)
        tokens = Tokens(
            ids,
            load_tokenizer(values["tokenizer"]),
            values["characters"],
            values["sample"],
            path.stem,
            values["left_out"],
        )
        if ids.dtype != narrowest_type(tokens.tokenizer.vocab_size) or not len(ids):
            return None
        checksum = 0
        for start in range(0, len(ids), CHECKED):
            checksum = zlib.crc32(np.asarray(ids[start : start + CHECKED]), checksum)
        if checksum != values["ids"]:
            return None
    except DAMAGED:
        return None
    mark_used(path)
    mark_used(about)
    return tokens


def _encode(corpus: Corpus, on_read: OnRead, tokenizer: Tokenizer, path: Path, max_tokens: int | None) -> None:
    """Write the ids of a text to `path`, and what there is to know about them beside it."""
    left_out = LeftOut()
    dtype = narrowest_type(tokenizer.vocab_size)
    n_tokens = n_characters = checksum = 0
    sample, distinct = "", set()
    with replacing(path.with_suffix(".json")) as about, replacing(path) as temporary, temporary.open("wb") as file:
        _write_header(file, dtype, 0)
        begins = True
        for part in chain([END_OF_TEXT], rechunk(corpus.read(on_read, left_out), PART)):
            text = part.replace(END_OF_TEXT, tokenizer.separator)
            ids = tokenizer.encode(text, not begins)[: None if max_tokens is None else max_tokens - n_tokens]
            begins = part.endswith(END_OF_TEXT)
            content = ids.astype(dtype).tobytes()
            file.write(content)
            checksum = zlib.crc32(content, checksum)
            sample += text[: SAMPLE_CHARACTERS - len(sample)] if n_tokens else ""
            n_tokens += len(ids)
            n_characters += len(text)
            if len(distinct) < 2:
                distinct |= set(part.replace(END_OF_TEXT, ""))
            if n_tokens == max_tokens:
                break
        if len(distinct) < 2:
            raise UserError(
                f"{corpus.name} has only one distinct character, so there is nothing to learn; give it more text"
            )
        file.seek(0)
        _write_header(file, dtype, n_tokens)
        values = {
            "tokenizer": tokenizer.to_dict(), "characters": n_characters, "sample": sample, "left_out": str(left_out),
            "ids": checksum,
        }  # fmt: skip
        about.write_text(json.dumps({**values, "checksum": _checksum(values)}), encoding="ascii")


def _checksum(values: dict[str, Any]) -> int:
    """A number that another content of `values` hardly has."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def narrowest_type(vocab_size: int) -> np.dtype:
    """The smallest type for ids below `vocab_size` that torch can index with little ado."""
    return np.dtype(np.uint8 if vocab_size <= 1 << 8 else np.uint16 if vocab_size <= 1 << 16 else np.int32)


def _write_header(file: IO[bytes], dtype: np.dtype, n: int) -> None:
    """The head of a .npy file of `n` numbers, of the same length for every n."""
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n,)}
    np.lib.format.write_array_header_1_0(file, about)


@contextlib.contextmanager
def _shown(doing: str, corpus: Corpus) -> Iterator[Callable[[int], None]]:
    """Shows how far a reading of a text is; yields what counts its bytes."""
    size, n_read = max(1, corpus.size), 0
    with Progress(f"{doing} {corpus.name}", SECONDS_UNSEEN) as progress:

        def on_read(n_bytes: int) -> None:
            nonlocal n_read
            n_read += n_bytes
            progress.update(min(1.0, n_read / size), f"{n_read / 1e6 / max(progress.seconds, 1e-3):,.0f} MB/s")

        yield on_read
