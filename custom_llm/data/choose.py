"""The text that `--dataset_path` names: files, a dataset by name, or the bundled stories where that cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from custom_llm.common.files import write_bytes
from custom_llm.common.notes import note, say
from custom_llm.common.progress import Progress
from custom_llm.data.cache import mark_used
from custom_llm.data.hub.named import Unavailable, fetch, find_dataset
from custom_llm.data.sources import Corpus, open_corpus
from custom_llm.data.stories.generate import generate_stories
from custom_llm.data.text import open_bytes

STORIES = 2_000_000  # characters


def check_text(spec: str) -> None:
    """Raise UserError where `spec` names no file that can be opened, and no dataset."""
    if find_dataset(spec) is None:
        for path in open_corpus(spec).files:
            open_bytes(path).close()


def choose_corpus(
    spec: str, cache: Path, *, encoding: str = "utf-8", field: str | None = None, max_chars: int | None = None,
    clean: str = "none", stream: bool | None = None, fallback: Callable[[], bool] | None = None,
) -> Corpus:  # fmt: skip
    """The text that `spec` names; a dataset by name is downloaded into the cache where it is not there yet.

    UserError where there is no such text, or it cannot be had.

    Args:
        spec: a file, a folder, a glob or several of them (see `sources`), or a dataset's name (see `hub`).
        field: the key or column of the text.
        clean: what is left out of each document (see `clean`).
        stream: read a dataset while it is downloaded (default: where only a part of it is wanted).
        fallback: asked whether to take the bundled stories where a dataset cannot be had here and now; None: do not.
    """
    dataset = find_dataset(spec)
    if dataset is None:
        return open_corpus(spec, encoding, field, max_chars, clean)
    folder = cache / "datasets"
    say(f"reading the dataset {spec}")
    try:
        with Progress(spec, has_end=False) as progress:
            path, notes = fetch(
                dataset, folder, field=field, max_chars=max_chars, stream=stream,
                on_progress=lambda n: progress.update(0, f"{n / 1e6:,.0f} million characters"),
            )  # fmt: skip
    except Unavailable as error:
        if fallback is None:
            raise
        if not fallback():
            raise Unavailable(spec, error.reason, f"{error.way_out}, or --fallback for the bundled stories") from None
        say(f"WARNING: {spec}: {error.reason}. TRAINING ON THE BUNDLED STORIES INSTEAD.")
        path = folder / "bundled_stories.txt"
        write_bytes(path, generate_stories(STORIES, variety=8).encode())
        return replace(open_corpus(str(path), max_chars=max_chars), name="the bundled stories")
    for each in notes:
        note(each)
    mark_used(path)
    return replace(open_corpus(str(path), max_chars=max_chars, clean=clean), name=spec)
