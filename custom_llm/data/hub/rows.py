"""Rows of a dataset, from the Hugging Face hub or a folder, through the library `datasets`.

Whatever goes wrong is a UserError, Unavailable if nothing is wrong with what was asked for (see `_explain`).

The library is imported inside functions: most trainings need none of it. Its progress bars and messages are silenced,
and its patience is shortened, since by its own settings a reader waits for a vanished hub for many minutes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.steps import install
from custom_llm.data.conversations import as_text

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from pyarrow import Table


TIMEOUT = 10.0  # seconds until a hub that does not answer counts as unreachable
# A read that failed was tried six times within half a minute by huggingface_hub; all of that is done as often as this:
READS, SECONDS_BETWEEN_READS = 2, 5
ROWS_AT_ONCE = 1000
OTHER_SOURCE = "try again later, or give a local file or folder"


class Unavailable(UserError):
    """A dataset that cannot be had here and now (`reason`), though nothing is wrong with how it was asked for."""

    def __init__(self, name: str, reason: str, way_out: str = OTHER_SOURCE) -> None:
        super().__init__(f"{name}: {reason}; {way_out}")
        self.reason, self.way_out = reason, way_out


@dataclass(frozen=True)
class HubDataset:
    """Where a dataset is and how its rows become documents."""

    name: str  # how the person calls it, in messages
    repo: str  # owner/name on the hub, or the absolute path of a folder
    config: str = ""  # default: the one configuration
    split: str = ""  # default: train, or the only one
    field: str = ""  # default: text
    revision: str = ""  # a branch of the repo, if not the main one
    rows: str = "documents"  # what a row is, a key of `named.CUTTERS`
    stream: bool = False  # whether it is read while it is downloaded, also without a bound
    default_max_chars: int | None = None  # the bound of what nobody wants as a whole

    @property
    def flag(self) -> str:
        """Where its column is named: in its name, where that has one."""
        return "hf:owner/name:config:field" if self.name.endswith(f":{self.field}") else "--text_field"

    @property
    def is_folder(self) -> bool:
        return os.path.isabs(self.repo)  # noqa: PTH117 (a hub's name is no path)


def latest_revision(dataset: HubDataset) -> str:
    """The commit (40 hex digits) that is now at the dataset's revision, or at the head, on the hub."""
    with _explained(dataset):
        from huggingface_hub import HfApi, constants

        try:
            info = HfApi().dataset_info(dataset.repo, revision=dataset.revision or None, timeout=TIMEOUT)
            return str(info.sha)
        except (json.JSONDecodeError, AttributeError, TypeError):  # the login page of a hotel, for example
            raise Unavailable(dataset.name, f"what answers at {constants.ENDPOINT} is no hub") from None


def open_rows(dataset: HubDataset, commit: str, stream: bool) -> Dataset | IterableDataset:
    """The rows of a dataset's split.

    commit: of the repo; empty for a folder.
    stream: read it while it is downloaded; if not, all of it is downloaded and copied into the library's cache.
    """
    with _explained(dataset):
        from datasets import load_dataset_builder

        # Without the prefix, a folder of that name in the working directory would be read.
        place = dataset.repo if dataset.is_folder else f"hf://datasets/{dataset.repo}"
        builder = load_dataset_builder(place, name=dataset.config or None, revision=commit or None)
        if hasattr(builder.config, "fragment_scan_options"):
            from pyarrow.dataset import ParquetFragmentScanOptions

            # By itself, the library keeps all it has read of a Parquet file in memory until the file ends.
            builder.config.fragment_scan_options = ParquetFragmentScanOptions(pre_buffer=False)
            builder.config.batch_size = ROWS_AT_ONCE
        if not stream:
            builder.download_and_prepare()
        make = builder.as_streaming_dataset if stream else builder.as_dataset
        split = dataset.split or "train"
        try:
            rows = make(split=split)
        except ValueError as error:
            available = _listed(error, _NO_SPLIT)
            if dataset.split or available is None or len(available) != 1:
                raise
            split = available[0]
            rows = make(split=split)
        kind = getattr((rows.features or {}).get(dataset.field), "dtype", "")
        if stream and hasattr(builder.config, "columns") and kind == "string":
            builder.config.columns = [dataset.field]  # the others, pictures perhaps, are not even downloaded
            rows = make(split=split)
        return rows


def read_column(rows: Dataset | IterableDataset, dataset: HubDataset) -> Iterator[str | None]:
    """The texts of the dataset's column, row by row; None for a row in which there is none."""
    name, field = dataset.name, dataset.field
    with _explained(dataset):
        for table in _tables(rows):
            if field not in table.column_names:
                raise UserError(f"{name} has no column {field}; {_names_another(dataset, table)}")
            for value in table.column(field).to_pylist():
                text = as_text(value)
                if text is None and value is not None:
                    kind = type(value).__name__
                    raise UserError(f"{name}: its column {field} is no text ({kind}); {_names_another(dataset, table)}")
                yield text


def _names_another(dataset: HubDataset, table: Table) -> str:
    """Which columns hold text, and how to name one."""
    columns = [
        name for name in table.column_names if any((as_text(value) or "").strip() for value in table[name].to_pylist())
    ]
    return f"{dataset.flag} names one that is ({', '.join(columns)})" if columns else "there is no text in it"


def _tables(rows: Dataset | IterableDataset) -> Iterator[Table]:
    """All rows, some at a time."""
    from datasets import IterableDataset

    if isinstance(rows, IterableDataset):
        yield from rows.with_format("arrow").iter(ROWS_AT_ONCE)
        return
    # Iterating over what was not streamed maps all of its files into memory, and they stay there.
    import pyarrow

    for file in rows.cache_files:
        with pyarrow.OSFile(file["filename"]) as source, pyarrow.ipc.open_stream(source) as reader:
            for batch in reader:
                yield pyarrow.Table.from_batches([batch])


@contextlib.contextmanager
def _explained(dataset: HubDataset) -> Iterator[None]:
    """Sets the libraries up, and turns whatever they raise into a UserError; Unavailable without them."""
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        reason = f"reading datasets by name needs the package datasets ({str(error).splitlines()[0]})"
        raise Unavailable(dataset.name, reason, install("data")) from None
    for library in (datasets.utils, huggingface_hub.utils):
        library.disable_progress_bars()
        # What the libraries have to say that matters comes as an exception, too.
        library.logging.set_verbosity(logging.CRITICAL + 1)
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = READS
    datasets.config.STREAMING_READ_RETRY_INTERVAL = SECONDS_BETWEEN_READS
    datasets.config.STREAMING_OPEN_RETRY_INTERVAL = SECONDS_BETWEEN_READS
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _explain(error, dataset) from error


_NO_SPLIT = re.compile(r"(?:Bad split: .*?\. Available splits|Unknown split .*?\. Should be one of):? (\[.*\])")
_NO_CONFIG = re.compile(r"(?:BuilderConfig '.*?' not found\. Available|among the available configs): (\[.*?\])")


def _explain(error: Exception, dataset: HubDataset) -> UserError:
    """What a person can do about an exception of the libraries; they know of each only by its type or its words."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub import constants
    from huggingface_hub import errors as hub
    from huggingface_hub.utils import httpx

    name, repo = dataset.name, dataset.repo
    unreachable = (httpx.RequestError, hub.LocalEntryNotFoundError, ConnectionError, TimeoutError)
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    for cause in _causes(error):
        if isinstance(cause, hub.OfflineModeIsEnabled):
            return Unavailable(name, "HF_HUB_OFFLINE is set", "unset it to download, or give a local file or folder")
        if isinstance(cause, hub.GatedRepoError) or (isinstance(cause, DatasetNotFoundError) and "gated" in str(cause)):
            return UserError(f"{name} is gated: accept its terms at {page}, then log in with `hf auth login`")
        if isinstance(cause, (hub.RepositoryNotFoundError, DatasetNotFoundError)):
            return UserError(
                f"{name}: the hub has no dataset {repo}, or it is private; look for its name on "
                f"{constants.ENDPOINT}/datasets, or log in with `hf auth login`"
            )
        if isinstance(cause, hub.HfHubHTTPError) and cause.response is not None:
            status = cause.response.status_code
            if status in (401, 403):
                return UserError(f"{name}: the hub refuses it ({status}); see {page}, or log in with `hf auth login`")
            if status in (408, 429) or status >= 500:
                return Unavailable(name, f"the hub cannot answer now ({status})")
            if status in (404, 407) and "X-Error-Code" not in cause.response.headers:  # a proxy, or a wrong HF_ENDPOINT
                return Unavailable(name, f"what answers at {constants.ENDPOINT} is no hub ({status})")
        if isinstance(cause, unreachable) or type(cause).__name__ == "XetDownloadError":
            return Unavailable(name, f"{constants.ENDPOINT} cannot be reached ({_line(cause)})")
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return UserError(f"{name}: the disk of the datasets' cache is full; free some of it, or set HF_HOME")
        if isinstance(cause, PermissionError):
            return UserError(f"{name}: {describe_os_error(cause)}; HF_HOME sets where downloads are kept")
        if (available := _listed(cause, _NO_SPLIT)) is not None:
            return UserError(
                f"{name} has no split {dataset.split or 'train'}; it has {', '.join(available) or 'none'}: "
                "hf:owner/name:/split or hf:owner/name:config/split names one"
            )
        if (available := _listed(cause, _NO_CONFIG)) is not None:
            config = dataset.config
            wrong = f"has no configuration {config}; it has" if config else "is several datasets, which are"
            return UserError(f"{name} {wrong} {', '.join(available)}: hf:owner/name:configuration names one")
        if "scripts are no longer supported" in str(cause):
            return UserError(
                f"{name} is a program to be run, which is not done here; look on the hub for a copy of it as data"
            )
        if isinstance(cause, DataFilesNotFoundError) or type(cause).__name__ == "EmptyDatasetError":
            return UserError(f"{name}: there are no data in {repo}; Parquet, JSON, CSV and text files are read")
    # The last cause is what began it: a damaged file, rows that differ, a card that is no YAML.
    first = list(_causes(error))[-1]
    place = repo if dataset.is_folder else page
    return UserError(f"{name} cannot be read: {_line(first)}; look at its files in {place}, or give another dataset")


def _line(error: BaseException) -> str:
    """The type and the first words of an exception."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}".removesuffix(": ")


def _causes(error: BaseException | None) -> Iterator[Any]:
    """An exception, what it was raised from or during, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _listed(error: BaseException, pattern: re.Pattern[str]) -> list[str] | None:
    """The names in the list that a library's message ends with, if it is such a message."""
    found = pattern.search(" ".join(str(error).split())) if isinstance(error, ValueError) else None
    return re.findall(r"'([^']*)'", found[1]) if found else None
