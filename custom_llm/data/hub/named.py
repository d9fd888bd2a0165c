"""Datasets by name: a text file of one is made in a cache folder, and read like any other file from there on.

    tinystories                          one of NAMED
    hf:owner/name                        a dataset of the Hugging Face hub, its column "text"
    hf:owner/name:config:field           one of its configurations, another column
    hf:owner/name:config/split:field     another split than train; each part may be empty, as in hf:owner/name::story
    hf:./folder                          a folder that is laid out like a dataset of the hub

The text is UTF-8, its lines end in \\n, and `<|endoftext|>` stands between documents. A file of the cache is called
DATASET-WHAT.REVISION.txt, where WHAT is a hash of all that decides which text it is and REVISION is the commit on the
hub, so that a dataset that changed is downloaded anew, and the last copy is found where there is no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.common.files import remove_abandoned, replacing
from custom_llm.data.cache import make_folder
from custom_llm.data.hub import rows as hub_rows
from custom_llm.data.hub.documents import CUTTERS, Cleaner
from custom_llm.data.hub.rows import Unavailable
from custom_llm.data.readers import FIELD
from custom_llm.tokenizer.cut import up_to

__all__ = ["NAMED", "Fetched", "HubDataset", "Unavailable", "fetch", "find_dataset"]

PREFIX = "hf:"
EXAMPLE = "such as hf:roneneldan/TinyStories, or hf:./folder"
LAYOUT = 1  # of the text; a copy of another one is not used
PROGRESS_EVERY = 1_000_000  # characters


@dataclass(frozen=True)
class HubDataset:
    """Where a dataset is and how its rows become documents.

    name: how the person calls it, in messages.
    repo: owner/name on the hub, or the absolute path of a folder.
    config, split, field: empty for the default: the one configuration, the split "train" or the only one, "text".
    revision: a branch of the repo, if not the main one.
    rows: a key of `documents.CUTTERS`, what a row is.
    stream: whether it is read while it is downloaded, also without a bound.
    default_max_chars: the bound of what nobody wants as a whole.
    """

    name: str
    repo: str
    config: str = ""
    split: str = ""
    field: str = ""
    revision: str = ""
    rows: str = "documents"
    stream: bool = False
    default_max_chars: int | None = None


@dataclass(frozen=True)
class Fetched:
    """The text file of a dataset, and what a person should know about it, a line each."""

    path: Path
    notes: tuple[str, ...] = ()


_HUGE = dict(stream=True, default_max_chars=100_000_000)
# tiny_shakespeare itself is a program; the hub keeps what that makes on a branch, cut in three at arbitrary characters.
_SHAKESPEARE = dict(revision="refs/convert/parquet", split="train+validation+test", rows="parts")
_WIKITEXT = dict(repo="Salesforce/wikitext", rows="articles")

NAMED: dict[str, HubDataset] = {
    dataset.name: dataset
    for dataset in (
        HubDataset("shakespeare", "karpathy/tiny_shakespeare", **_SHAKESPEARE),  # 1 MB
        HubDataset("tinystories", "roneneldan/TinyStories"),  # 2 GB
        HubDataset("wikitext", config="wikitext-2-raw-v1", **_WIKITEXT),  # 11 MB
        HubDataset("wikitext-103", config="wikitext-103-raw-v1", **_WIKITEXT),  # 540 MB
        HubDataset("fineweb", "HuggingFaceFW/fineweb", config="sample-10BT", **_HUGE),
        HubDataset("c4", "allenai/c4", config="en", **_HUGE),
    )
}


def find_dataset(spec: str) -> HubDataset | None:
    """The dataset that `spec` names, or None where it is a path: a file or folder of that name goes first.

    Raises:
        UserError: it begins with hf: and names none.
    """
    if not spec.startswith(PREFIX):
        return None if os.path.lexists(spec.replace("\0", "")) else NAMED.get(spec)
    # The colon of C:\ is no separator.
    match = re.fullmatch(r"((?:[A-Za-z]:(?=[\\/]))?[^:\0]*)(?::([^:\0]*))?(?::([^:\0]*))?", spec.removeprefix(PREFIX))
    if match is None:
        raise UserError(f"{spec}: a dataset is named hf:owner/name[:config[/split]][:field], {EXAMPLE}")
    place, config, field = match.groups(default="")
    config, _, split = config.partition("/")
    named = HubDataset(spec, place, config, split, field)
    if place.startswith((".", "~")) or hub_rows.is_folder(place):
        folder = Path(os.path.expanduser(place)).resolve()  # noqa: PTH111 (which knows no ~stranger)
        if not folder.is_dir():
            what = "is a file, which is read without hf:" if folder.exists() else "no such folder"
            raise UserError(f"{spec}: {place}: {what}")
        return replace(named, repo=str(folder), stream=True)  # nothing to download
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", place, re.ASCII):
        raise UserError(f"{spec}: a dataset on the hub has an owner and a name, {EXAMPLE}")
    return named


def fetch(
    dataset: HubDataset,
    cache_dir: Path,
    *,
    field: str | None = None,
    max_chars: int | None = None,
    stream: bool | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Fetched:
    """The text file of a dataset; it is downloaded where there is none of the newest revision.

    Args:
        cache_dir: where the file is, or will be; made if it is missing.
        field: the column of the text (`--text_field`), if the dataset's name has none.
        max_chars: the text ends there; without it the whole dataset is fetched, or `default_max_chars` of it.
        stream: read it while it is downloaded; False: download all first, which an interrupted download survives.
            None: stream where only a part is wanted.
        on_progress: called now and then with the number of characters written so far.

    Raises:
        Unavailable: it cannot be had here and now, and there is no earlier copy.
        UserError: there is no such dataset, configuration, split or column; it is closed to us, damaged or empty; or
            the file cannot be written.
    """
    if field and dataset.field and field != dataset.field:
        raise UserError(f"{dataset.name} names the column {dataset.field}, --text_field {field}; give one of them")
    if max_chars is not None and max_chars < 1:
        raise UserError(f"--max_chars {max_chars}: must be at least 1")
    notes = []
    if max_chars is None and dataset.default_max_chars:
        max_chars = dataset.default_max_chars
        notes.append(f"{dataset.name}: only its first {max_chars:,} characters are used; --max_chars sets the bound")
    dataset = replace(dataset, field=field or dataset.field or FIELD)
    stream = stream if stream is not None else dataset.stream or max_chars is not None
    copies = _Copies(dataset, max_chars, Path(cache_dir))
    try:
        revision = _revision(dataset)
        path = copies.path(revision)
        if not path.is_file():
            notes += _download(dataset, revision, path, max_chars, stream, on_progress)
            notes += copies.remove_others(path)
        return Fetched(path, tuple(notes))
    except Unavailable as error:
        latest = copies.latest()
        if latest is None:
            raise
        return Fetched(latest, (*notes, f"{dataset.name}: {error.reason}; using the copy of {_day(latest)}"))


class _Copies:
    """The files in the cache that hold one text in its several revisions."""

    def __init__(self, dataset: HubDataset, max_chars: int | None, folder: Path) -> None:
        values = [LAYOUT, dataset.repo, dataset.config, dataset.split, dataset.revision, dataset.field, dataset.rows]
        what = hashlib.sha256(json.dumps([*values, max_chars]).encode()).hexdigest()[:12]
        self._stem = re.sub(r"[^\w-]+", "_", f"{Path(dataset.repo).name[:40]}-{what}")
        self._name, self._folder = dataset.name, make_folder(folder)
        # Of any revision, unlike `replacing` does itself.
        remove_abandoned(self._folder, f".{self._stem}.", ".tmp.txt")

    def path(self, revision: str) -> Path:
        return self._folder / f"{self._stem}.{revision[:16]}.txt"

    def latest(self) -> Path | None:
        return max(self._folder.glob(f"{self._stem}.*.txt"), key=lambda path: path.stat().st_mtime_ns, default=None)

    def remove_others(self, path: Path) -> Iterator[str]:
        """Remove the copies that `path` replaces, and yield a note for each."""
        for other in sorted(self._folder.glob(f"{self._stem}.*.txt")):
            if other != path:
                yield f"{self._name} has changed since the copy of {_day(other)}, which is replaced"
                with contextlib.suppress(OSError):  # on Windows, where another process reads it
                    other.unlink()


def _day(path: Path) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))


def _revision(dataset: HubDataset) -> str:
    """The commit on the hub, or a hash of the names, sizes and times of a folder's files."""
    if not hub_rows.is_folder(dataset.repo):
        return hub_rows.latest_revision(dataset.name, dataset.repo, dataset.revision)
    files = []
    for parent, folders, names in os.walk(dataset.repo):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            with contextlib.suppress(OSError):  # a link to nothing
                status = Path(parent, name).stat()
                files.append((str(Path(parent, name)), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()


def _download(
    dataset: HubDataset,
    revision: str,
    path: Path,
    max_chars: int | None,
    stream: bool,
    on_progress: Callable[[int], None] | None,
) -> list[str]:
    """Write the text to `path`, whole or not at all, and return notes. Raises as `fetch` does."""
    commit = "" if hub_rows.is_folder(dataset.repo) else revision
    rows = hub_rows.open_dataset(
        dataset.name, dataset.repo, dataset.field, dataset.config, dataset.split, commit, stream
    )
    clean = Cleaner()
    texts = map(clean, hub_rows.read_column(rows, dataset.field, dataset.name, dataset.repo))
    # The library reads text files line by line.
    kind = "lines" if rows.info.builder_name == "text" and dataset.rows == "documents" else dataset.rows
    written = reported = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for piece in up_to(max_chars, CUTTERS[kind](texts)):
            file.write(piece)
            written += len(piece)
            if on_progress is not None and written - reported >= PROGRESS_EVERY:
                reported = written
                on_progress(written)
        if not written:
            raise UserError(f"{dataset.name}: its column {dataset.field} is empty; --text_field names another")
    if on_progress is not None:
        on_progress(written)
    notes = []
    if not dataset.split and str(rows.split) != "train":
        notes.append(f"{dataset.name} has no split train; its only one, {rows.split}, is used")
    if clean.dropped:
        notes.append(f"{dataset.name}: left out {clean.dropped:,} characters that no text has (NUL or half a pair)")
    return notes
