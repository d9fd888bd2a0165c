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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.common.files import remove_abandoned, replacing
from custom_llm.common.steps import step
from custom_llm.common.text import counted
from custom_llm.data.cache import make_folder
from custom_llm.data.hub.rows import HubDataset, Unavailable, latest_revision, open_rows, read_column
from custom_llm.data.readers import FIELD
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.cut import up_to

PREFIX = "hf:"
EXAMPLE = "such as hf:roneneldan/TinyStories, or hf:./folder"
NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
LAYOUT = 1  # of the text; a copy of another one is not used
PROGRESS_EVERY = 1_000_000  # characters
# ` = Title = ` on a line of WikiText, but not ` = = Section = = `
HEADING = re.compile(r" ?= (?!=)[^\n]*(?<!=) = ?\n?")


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

    UserError where it begins with hf: and names none.
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
    if place.startswith((".", "~")) or named.is_folder:
        folder = Path(os.path.expanduser(place)).resolve()  # noqa: PTH111 (which knows no ~stranger)
        if not folder.is_dir():
            what = "is a file, which is read without hf:" if folder.exists() else "no such folder"
            raise UserError(f"{spec}: {place}: {what}")
        return replace(named, repo=str(folder), stream=True)  # nothing to download
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", place, re.ASCII):
        raise UserError(f"{spec}: a dataset on the hub has an owner and a name, {EXAMPLE}")
    return named


def fetch(
    dataset: HubDataset, cache_dir: Path, *, field: str | None = None, max_chars: int | None = None,
    stream: bool | None = None, on_progress: Callable[[int], object] = lambda n_characters: None,
) -> tuple[Path, list[str]]:  # fmt: skip
    """The text file of a dataset in the cache, downloaded unless it has that of the newest revision; and notes.

    Unavailable where it cannot be had here and now, and there is no earlier copy. UserError where there is no such
    dataset, configuration, split or column, where it is closed to us, damaged or empty, or the disk is full.

    Args:
        field: the column of the text (`--text_field`), if the dataset's name has none.
        max_chars: the text ends there; without it the whole dataset is fetched, or `default_max_chars` of it.
        stream: read it while it is downloaded; False: download all first, which an interrupted download survives.
            None: stream where only a part is wanted.
        on_progress: called now and then with the number of characters written so far.
    """
    if field and dataset.field and field != dataset.field:
        raise UserError(f"{dataset.name} names the column {dataset.field}, --text_field {field}; give one of them")
    if max_chars is not None and max_chars < 1:
        raise UserError(f"--max_chars {max_chars}: must be at least 1")
    notes = []
    if max_chars is None and dataset.default_max_chars:
        max_chars = dataset.default_max_chars
        bound = f"{step('train_llm')} --max_chars"
        notes.append(f"{dataset.name}: only its first {max_chars:,} characters are used; {bound} sets the bound")
    dataset = replace(dataset, field=field or dataset.field or FIELD)
    stream = stream if stream is not None else dataset.stream or max_chars is not None
    folder = make_folder(cache_dir)
    values = [LAYOUT, dataset.repo, dataset.config, dataset.split, dataset.revision, dataset.field, dataset.rows]
    what = hashlib.sha256(json.dumps([*values, max_chars]).encode()).hexdigest()[:12]
    stem = re.sub(r"[^\w-]+", "_", f"{Path(dataset.repo).name[:40]}-{what}")
    remove_abandoned(folder, f".{stem}.", ".tmp.txt")  # of any revision, unlike `replacing` does itself
    try:
        revision = _revision(dataset)
        path = folder / f"{stem}.{revision[:16]}.txt"
        if not path.is_file():
            notes += _download(dataset, revision, path, max_chars, stream, on_progress)
            for other in sorted(folder.glob(f"{stem}.*.txt")):
                if other != path:
                    notes.append(f"{dataset.name} has changed since the copy of {_day(other)}, which is replaced")
                    with contextlib.suppress(OSError):  # on Windows, where another process reads it
                        other.unlink()
        return path, notes
    except Unavailable as error:
        latest = max(folder.glob(f"{stem}.*.txt"), key=lambda path: path.stat().st_mtime_ns, default=None)
        if latest is None:
            raise
        return latest, [*notes, f"{dataset.name}: {error.reason}; using the copy of {_day(latest)}"]


def _day(path: Path) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))


def _revision(dataset: HubDataset) -> str:
    """The commit on the hub, or a hash of the names, sizes and times of a folder's files."""
    if not dataset.is_folder:
        return latest_revision(dataset)
    files = []
    for parent, folders, names in os.walk(dataset.repo):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            with contextlib.suppress(OSError):  # a link to nothing
                status = Path(parent, name).stat()
                files.append((str(Path(parent, name)), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()


def _download(
    dataset: HubDataset, revision: str, path: Path, max_chars: int | None, stream: bool,
    on_progress: Callable[[int], object],
) -> list[str]:  # fmt: skip
    """Write the text to `path`, whole or not at all, and return notes. Raises as `fetch` does."""
    rows = open_rows(dataset, "" if dataset.is_folder else revision, stream)
    dropped = without = 0

    def clean(text: str) -> str:
        """As `text.clean`, but without failing: in someone else's dataset there is nothing a person could mend."""
        nonlocal dropped
        text, n = NO_CHARACTER.subn("", text)
        dropped += n
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

    def texts() -> Iterator[str]:
        nonlocal without
        for text in read_column(rows, dataset):
            if text is None:
                without += 1
            else:
                yield clean(text)

    # The library reads text files line by line.
    kind = "lines" if rows.info.builder_name == "text" and dataset.rows == "documents" else dataset.rows
    written = reported = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for piece in up_to(max_chars, CUTTERS[kind](texts())):
            file.write(piece)
            written += len(piece)
            if written - reported >= PROGRESS_EVERY:
                reported = written
                on_progress(written)
        if not written:
            raise UserError(
                f"{dataset.name}: its column {dataset.field} is empty; {dataset.flag} names one that is not"
            )
    on_progress(written)
    notes = []
    if not dataset.split and str(rows.split) != "train":
        notes.append(f"{dataset.name} has no split train; its only one, {rows.split}, is used")
    if without:
        notes.append(f"{dataset.name}: left out: {counted(without, 'row')} without a text")
    if dropped:
        notes.append(f"{dataset.name}: left out {dropped:,} characters that no text has (NUL or half a pair)")
    return notes


# --- what a row is: rows to the text of their documents ---------------------------------------------------------------


def documents(rows: Iterable[str]) -> Iterator[str]:
    """A row is a document.

    >>> "".join(documents(["One.", " ", "Two."]))
    'One.<|endoftext|>Two.'
    """
    before = ""
    for row in rows:
        if row and not row.isspace():
            yield before + row
            before = END_OF_TEXT


def lines(rows: Iterable[str]) -> Iterator[str]:
    """A row is a line of one long text."""
    return (row if row.endswith("\n") else row + "\n" for row in rows)


def articles(rows: Iterable[str]) -> Iterator[str]:
    """A row is a line, and ` = Title = ` begins a document, as in WikiText.

    >>> "".join(articles([" = A = \\n", "", " = = B = = ", "", " = C = "]))
    ' = A = \\n\\n = = B = = \\n<|endoftext|> = C = \\n'
    """
    started, blank = False, 0
    for line in lines(rows):
        if line.isspace():  # held back, since none stand at a document's end
            blank += started
            continue
        if started:
            yield END_OF_TEXT if HEADING.fullmatch(line) else "\n" * blank
        yield line
        started, blank = True, 0


# In parts, rows follow each other without a break.
CUTTERS: dict[str, Callable[[Iterable[str]], Iterator[str]]] = {
    "documents": documents, "lines": lines, "articles": articles, "parts": iter
}  # fmt: skip
