"""Text from a file, several files, a folder or a glob, in the forms people keep text in:

.txt .md and all others   one document
.jsonl .ndjson            a document a line: the "text" of each JSON object
.csv .tsv                 a document a row: its column "text"
.parquet                  a document a row: its column "text" (needs pyarrow)
any of these with .gz     the same, compressed
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from custom_llm.data.text import clean, decode, read_bytes
from custom_llm.data.tokenizer import END_OF_TEXT
from custom_llm.errors import UserError

# What of a folder is read; by name, any file is.
IN_FOLDERS = (".txt", ".md", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
FIELD = "text"


def read_text(spec: str, encoding: str = "utf-8", field: str | None = None) -> str:
    """All documents of `spec` (see `read_documents`), with `<|endoftext|>` between them.

    Raises:
        UserError: see `read_documents`; or there is no text in them.
    """
    text = END_OF_TEXT.join(document for document in read_documents(spec, encoding, field) if document)
    if not text:
        raise UserError(f"{spec} is empty; give a text of at least a few thousand characters")
    return text


def read_documents(spec: str, encoding: str = "utf-8", field: str | None = None) -> Iterator[str]:
    """The documents of `spec` in order of path, each without a byte-order mark and with lines ending in \\n.

    Args:
        spec: a file, a folder (read with all folders in it), a glob, or several of them with commas between.
        encoding: of files of text.
        field: the key or column of the text in .jsonl, .csv and .parquet (default: "text").

    Raises:
        UserError: there is no such file, or it is not what its name says, by name and line.
    """
    for path in find_files(spec):
        yield from _READERS.get(_kind(path), _plain)(path, encoding, field or FIELD)


def find_files(spec: str) -> list[Path]:
    """The files that `spec` names, each once, in order.

    Raises:
        UserError: one of its parts names none.
    """
    # A name with a comma or a star in it is that file, if there is one.
    parts = [spec] if _exists(spec) else [part.strip() for part in spec.split(",") if part.strip()] or [spec]
    return list(dict.fromkeys(path for part in parts for path in _find(part)))


def _find(part: str) -> list[Path]:
    if _exists(part):
        return _in_folder(Path(part)) if Path(part).is_dir() else [Path(part)]
    if any(char in part for char in "*?["):
        matches = glob.glob(part, recursive=True)  # noqa: PTH207 (Path.glob knows no absolute patterns)
        found = sorted(path for path in map(Path, matches) if path.is_file())
        if found:
            return found
        raise UserError(f"{part}: no file has such a name; give a file, a folder or a glob that matches")
    return [Path(part)]  # reading it says what is wrong


def _in_folder(folder: Path) -> list[Path]:
    """The files of a folder and its folders that have a known ending, without hidden ones."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        found += [path for path in paths if _kind(path) in IN_FOLDERS and path.is_file()]
    if not found:
        raise UserError(f"{folder} is a folder without {' '.join(IN_FOLDERS)} files; put text into it, or name a file")
    return found


def _exists(spec: str) -> bool:
    try:
        return os.path.lexists(spec)
    except ValueError:  # a NUL in the name
        return False


def _kind(path: Path) -> str:
    """Its ending in small letters, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _text(path: Path, encoding: str) -> str:
    content = read_bytes(path)
    if path.name.lower().endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is not a whole gzip file: {error}") from None
    return decode(content, path, encoding)


def _plain(path: Path, encoding: str, field: str) -> Iterator[str]:
    yield _text(path, encoding)


def _jsonl(path: Path, encoding: str, field: str) -> Iterator[str]:
    for number, line in enumerate(_text(path, encoding).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from None
        yield _field_of(values, field, f"{path}, line {number}")


def _csv(path: Path, encoding: str, field: str) -> Iterator[str]:
    csv.field_size_limit(1 << 30)  # a document may be long
    rows = csv.DictReader(io.StringIO(_text(path, encoding)), delimiter="\t" if _kind(path) == ".tsv" else ",")
    try:
        for values in rows:
            yield _field_of(values, field, f"{path}, line {rows.line_num}")
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not CSV: {error}") from None


def _parquet(path: Path, encoding: str, field: str) -> Iterator[str]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{path}: reading Parquet needs pyarrow; pip install pyarrow") from None
    content = read_bytes(path)
    try:
        with ParquetFile(io.BytesIO(content)) as file:
            names = file.schema_arrow.names
            if field not in names:
                raise UserError(f"{path} has no column {field}; it has {', '.join(names)}: --text_field names one")
            for batch in file.iter_batches(columns=[field]):
                yield from (_checked(value, field, str(path)) for value in batch.column(0).to_pylist())
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from None


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
    return clean(value, place)


_READERS: dict[str, Callable[[Path, str, str], Iterator[str]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
