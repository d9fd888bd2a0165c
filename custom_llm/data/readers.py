"""The forms people keep text in, each as documents and each document as pieces of text, so that none has to fit memory:

.txt .md .py and all others      one document
.html .docx .odt .epub .pdf      one document, without its markup (see `markup`)
.ipynb                           one document: what is in its cells
.jsonl .ndjson                   a document a line: the "text" of each JSON object
.json                            a document a record (see `_records`)
.csv .tsv                        a document a row: its column "text"
.parquet                         a document a row: its column "text" (needs pyarrow)
any of them with .gz .bz2 .xz    the same, packed
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from custom_llm.common.errors import UserError
from custom_llm.common.steps import install
from custom_llm.common.text import counted
from custom_llm.data.conversations import as_text
from custom_llm.data.text import LONGEST, NoText, OnRead, clean, lines, open_bytes, packing, read_file, unpacked

FIELD = "text"
BATCH_ROWS = 1024  # of Parquet, held in memory at a time
AS_IT_IS = "name another file, or let this one's name end in .txt to learn it as it stands"
NAMES_SHOWN = 8  # of fields, in a message
MARKUP = (".html", ".htm", ".xhtml", ".docx", ".odt", ".epub", ".pdf")
TEXT = ".txt .text .md .markdown .rst .adoc .org .tex .srt .vtt"
CODE = """
    .py .pyi .js .mjs .cjs .jsx .ts .tsx .vue .svelte .css .scss .less .c .h .cc .cpp .cxx .hh .hpp .cu .m .mm .rs .go
    .java .kt .scala .groovy .cs .fs .vb .swift .dart .rb .php .pl .pm .lua .r .jl .hs .ml .mli .elm .erl .ex .exs .clj
    .lisp .el .scm .f90 .pas .asm .s .v .vhd .sh .bash .zsh .fish .ps1 .bat .sql .proto .cmake
"""

Document = Iterable[str]


@dataclass
class LeftOut:
    """What was no text, while files were read."""

    rows: Counter[str] = field(default_factory=Counter)  # file → rows with nothing where the text should be
    files: list[str] = field(default_factory=list)  # why, for each file of a folder that is left out

    def __str__(self) -> str:
        """A line for the person; "" if nothing was left out."""
        parts = [f"{counted(n, 'row')} of {path} without a text" for path, n in self.rows.items()]
        if self.files:
            parts.append(f"{counted(len(self.files), 'file')} ({self.files[0]})")
        return f"left out: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class _Reading:
    """How a file is read."""

    encoding: str
    field: str  # the key or column of the text
    on_read: OnRead
    left_out: LeftOut


def read_documents(
    path: Path, encoding: str, field: str | None, on_read: OnRead = None, left_out: LeftOut | None = None
) -> Iterator[Document]:
    """The documents of a file, to be read one after the other, without byte-order marks and with lines ending in \\n.

    UserError where there is no such file, or it is not what its name says, by name and line; NoText where it holds no
    text. Rows with nothing where the text should be (null) are skipped and counted in `left_out`.
    """
    read = _READERS.get(kind_of(path), _plain)
    return read(path, _Reading(encoding, field or FIELD, on_read, left_out or LeftOut()))


def kind_of(path: Path) -> str:
    """Its ending in small letters, without that of what packed it."""
    name = path.name.lower()
    return Path(name.removesuffix(packing(path))).suffix


def _plain(path: Path, reading: _Reading) -> Iterator[Document]:
    yield read_file(path, reading.encoding, reading.on_read)


def _markup(path: Path, reading: _Reading) -> Iterator[Document]:
    from custom_llm.data.markup import read_markup  # libraries that few need

    with open_bytes(path) as raw, unpacked(raw, path) as file:
        yield clean(read_markup(kind_of(path), file, path, reading.encoding), path)
        if reading.on_read is not None:
            reading.on_read(path.stat().st_size)


def _jsonl(path: Path, reading: _Reading) -> Iterator[Document]:
    texts = _Texts(path, "line", reading)
    for number, line in enumerate(lines(read_file(path, reading.encoding, reading.on_read), path), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise NoText(f"{path}, line {number} is not JSON: {error}") from None
            yield from texts.of(record, number)


def _json(path: Path, reading: _Reading) -> Iterator[Document]:
    text = _whole(path, reading)
    first, _, rest = text.partition("\n")
    if rest.strip() and _is_object(first):  # many call JSON lines so
        yield from _jsonl(path, reading)
        return
    texts = _Texts(path, "record", reading)
    for number, record in enumerate(_records(_parsed(text, path), reading.field), 1):
        yield from [(record,)] if isinstance(record, str) else texts.of(record, number)


def _notebook(path: Path, reading: _Reading) -> Iterator[Document]:
    """What was written into the cells, without what came out of them."""
    notebook = _parsed(_whole(path, reading), path)
    try:
        sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    except (KeyError, TypeError):
        raise NoText(f"{path} is not a notebook with cells; {AS_IT_IS}") from None
    yield clean([text + "\n\n" for text in sources], path)


def _whole(path: Path, reading: _Reading) -> str:
    pieces, n_characters = [], 0
    for piece in read_file(path, reading.encoding, reading.on_read):
        pieces.append(piece)
        n_characters += len(piece)
        if n_characters > LONGEST:
            raise UserError(f"{path} has more than {LONGEST:,} characters; put a record on each line of a .jsonl")
    return "".join(pieces)


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoText(f"{path} is not JSON: {error}; {AS_IT_IS}") from None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _records(values: Any, field: str) -> list[Any]:
    """The records in a parsed .json: a list of them, one by itself, or the one list or the objects in an object."""
    if not isinstance(values, dict) or _look_up(values, field) is not None:
        return values if isinstance(values, list) else [values]
    lists = [value for value in values.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1 and not as_text(lists[0]):
        return lists[0]
    inside = list(values.values())
    return inside if inside and all(isinstance(value, dict) for value in inside) else [values]


def _csv(path: Path, reading: _Reading) -> Iterator[Document]:
    csv.field_size_limit(LONGEST)
    text = lines(read_file(path, reading.encoding, reading.on_read), path)
    texts = _Texts(path, "line", reading)
    # Strict, since a quote that is never closed would make one document of all that follows.
    rows = csv.DictReader(text, delimiter="\t" if kind_of(path) == ".tsv" else ",", strict=True)
    ended = 0  # the last line of the last row
    try:
        if (rows.fieldnames or []).count(reading.field) > 1:
            raise UserError(f"{path} has several columns {reading.field}; --text_field names another")
        ended = rows.line_num
        for values in rows:
            ended = rows.line_num
            yield from texts.of(values, ended)
    except csv.Error as error:
        raise NoText(f"{path}, the row that begins at line {ended + 1} is not CSV: {error}") from None


def _parquet(path: Path, reading: _Reading) -> Iterator[Document]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise NoText(f"{path}: reading Parquet needs pyarrow: {install('data')}") from None
    texts = _Texts(path, "row", reading)
    with open_bytes(path) as raw, unpacked(raw, path) as opened:
        try:
            with ParquetFile(opened, page_checksum_verification=True) as file:
                names = file.schema_arrow.names
                column = reading.field if reading.field in names else reading.field.partition(".")[0]
                if column not in names:
                    first = next(file.iter_batches(1), None)
                    raise NoText(f"{path} has no column {column}; {_names_one(first.to_pylist()[0] if first else {})}")
                size, number = path.stat().st_size, 0
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(BATCH_ROWS, [group], [column]):
                        for values in batch.to_pylist():
                            number += 1
                            yield from texts.of(values, number)
                    if reading.on_read is not None:
                        reading.on_read(size // file.num_row_groups)
        except (ArrowException, OSError, UnicodeDecodeError) as error:
            raise NoText(f"{path} is not a whole Parquet file: {error}") from None


class _Texts:
    """The texts of a file's records. One with nothing where the text should be is counted, and has none."""

    def __init__(self, path: Path, unit: str, reading: _Reading) -> None:
        self._path, self._unit, self._reading = path, unit, reading
        self._found = False  # whether any record before had the field

    def of(self, record: Any, number: int) -> list[Document]:
        """The one text of a record, or none; NoText where the record or its field is none that holds text."""
        place, field = f"{self._path}, {self._unit} {number}", self._reading.field
        if record is None or (isinstance(record, dict) and self._found and _look_up(record, field) is None):
            return self._skip()
        if not isinstance(record, dict):
            raise NoText(f"{place} is not an object with a {field}")
        if not _has(record, field):
            raise NoText(f"{place} has no {field}; {_names_one(record)}")
        self._found = True
        value = _look_up(record, field)
        if value is None:
            return self._skip()
        text = as_text(value)
        if text is None:
            raise NoText(f"{place}: its {field} is no text; {_names_one(record)}")
        return [("".join(clean([text], place)),)]

    def _skip(self) -> list[Document]:
        self._reading.left_out.rows[str(self._path)] += 1
        return []


def _has(record: dict[Any, Any], field: str) -> bool:
    outer, _, inner = field.rpartition(".")
    return field in record or (bool(outer) and inner in (_look_up(record, outer) or ()))


def _look_up(record: Any, field: str) -> Any:
    """The value of a key, or where there is none and the key has dots, of keys inside each other; None without one."""
    if not isinstance(record, dict) or field in record:
        return record[field] if isinstance(record, dict) else None
    outer, dot, inner = field.partition(".")
    return _look_up(record.get(outer), inner) if dot else None


def _names_one(record: dict[Any, Any]) -> str:
    """What can be given as --text_field instead."""
    if "mapping" in record and "title" in record:
        return "it looks like ChatGPT's own export, which is not read; copy its texts into a file"
    names = list(_fields(record))
    if not names:
        return f"nothing in it is one; {AS_IT_IS}"
    if len(names) == 1 and isinstance(_look_up(record, names[0]), list):
        return f"it looks like a conversation: --text_field {names[0]} learns it as plain text"
    shown = ", ".join([*names[:NAMES_SHOWN], *["…"][: len(names) > NAMES_SHOWN]])
    return f"it has {shown}: --text_field names one"


def _fields(values: dict[Any, Any], before: str = "", depth: int = 3) -> Iterator[str]:
    """The names of the texts in a record."""
    for key, value in values.items():
        if isinstance(value, dict) and depth:
            yield from _fields(value, f"{before}{key}.", depth - 1)
        elif key is not None and (as_text(value) or "").strip():
            yield f"{before}{key}"


_READERS: dict[str, Callable[[Path, _Reading], Iterator[Document]]] = {
    **dict.fromkeys(MARKUP, _markup), ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".ipynb": _notebook,
    ".csv": _csv, ".tsv": _csv, ".parquet": _parquet,
}  # fmt: skip
IN_FOLDERS = frozenset((*TEXT.split(), *CODE.split(), *_READERS))  # what is read of a folder
