"""The forms people keep text in, each as documents and each document as pieces of text, so that none has to fit memory:

.txt .md and all others   one document
.jsonl .ndjson            a document a line: the "text" of each JSON object
.csv .tsv                 a document a row: its column "text"
.parquet                  a document a row: its column "text" (needs pyarrow)
any but .parquet with .gz the same, compressed
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.common.steps import install
from custom_llm.data.text import OnRead, clean, open_bytes, read_file

FIELD = "text"
LONGEST = 1 << 28  # characters of a line, or of a field in CSV, which are held in memory
BATCH_ROWS = 1024  # of Parquet, held in memory at a time
IN_FOLDERS = (".txt", ".md", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")  # what is read of a folder

Document = Iterable[str]


def read_documents(path: Path, encoding: str, field: str | None, on_read: OnRead = None) -> Iterator[Document]:
    """The documents of a file, to be read one after the other, without byte-order marks and with lines ending in \\n.

    UserError where there is no such file, or it is not what its name says, by name and line.
    """
    return _READERS.get(kind_of(path), _plain)(path, encoding, field or FIELD, on_read)


def kind_of(path: Path) -> str:
    """Its ending in small letters, without .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _plain(path: Path, encoding: str, field: str, on_read: OnRead) -> Iterator[Document]:
    yield read_file(path, encoding, on_read)


def _jsonl(path: Path, encoding: str, field: str, on_read: OnRead) -> Iterator[Document]:
    for number, line in enumerate(_lines(path, encoding, on_read), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from None
        yield (_field_of(values, field, f"{path}, line {number}"),)


def _csv(path: Path, encoding: str, field: str, on_read: OnRead) -> Iterator[Document]:
    csv.field_size_limit(LONGEST)
    lines = _lines(path, encoding, on_read)
    # Strict, since a quote that is never closed would make one document of all that follows.
    rows = csv.DictReader(lines, delimiter="\t" if kind_of(path) == ".tsv" else ",", strict=True)
    ended = 0  # the last line of the last row
    try:
        if (rows.fieldnames or []).count(field) > 1:
            raise UserError(f"{path} has several columns {field}; --text_field names another")
        ended = rows.line_num
        for values in rows:
            ended = rows.line_num
            yield (_field_of(values, field, f"{path}, line {ended}"),)
    except csv.Error as error:
        raise UserError(f"{path}, the row that begins at line {ended + 1} is not CSV: {error}") from None


def _parquet(path: Path, encoding: str, field: str, on_read: OnRead) -> Iterator[Document]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs pyarrow: {install('data')}") from None
    with open_bytes(path) as raw:
        try:
            with ParquetFile(raw) as file:
                names = file.schema_arrow.names
                if field not in names:
                    raise UserError(f"{path} has no column {field}; it has {', '.join(names)}: --text_field names one")
                size = path.stat().st_size
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(BATCH_ROWS, [group], [field]):
                        yield from ((_checked(value, field, str(path)),) for value in batch.column(0).to_pylist())
                    if on_read is not None:
                        on_read(size // file.num_row_groups)
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a whole Parquet file: {error}") from None


def _lines(path: Path, encoding: str, on_read: OnRead) -> Iterator[str]:
    """The lines of a file with their \\n. (Not splitlines: it splits at characters that may stand in a line, too.)"""
    rest: list[str] = []
    for piece in read_file(path, encoding, on_read):
        first, *others = piece.split("\n")
        rest.append(first)
        if sum(map(len, rest)) > LONGEST:
            raise UserError(f"{path} has a line of more than {LONGEST:,} characters; put each document on its own line")
        for line in others:
            yield "".join(rest) + "\n"
            rest = [line]
    if any(rest):
        yield "".join(rest)


def _field_of(values: object, field: str, place: str) -> str:
    if not isinstance(values, dict):
        raise UserError(f"{place} is not an object with a {field}")
    if field not in values:
        keys = ", ".join(str(key) for key in values if key is not None)
        raise UserError(f"{place} has no {field}; it has {keys or 'nothing'}: --text_field names one")
    return _checked(values[field], field, place)


def _checked(value: object, field: str, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: its {field} is no text; --text_field names another")
    return "".join(clean([value], place))


_READERS: dict[str, Callable[[Path, str, str, OnRead], Iterator[Document]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
