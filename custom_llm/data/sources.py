"""What a person names as the text to learn from: a file, several files, a folder or a glob."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import LOSSES
from custom_llm.data.readers import IN_FOLDERS, kind_of, read_documents
from custom_llm.data.text import OnRead, is_packed
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.cut import up_to


@dataclass(frozen=True)
class Corpus:
    """Text in files, which may be more than fits into memory: it is read anew, piece by piece, each time."""

    name: str  # how messages call it
    files: tuple[Path, ...]  # read in this order
    encoding: str = "utf-8"  # of files of text
    field: str | None = None  # the key or column of the text in .jsonl, .csv and .parquet (default: "text")
    max_chars: int | None = None  # after which the rest is left out

    def read(self, on_read: OnRead = None) -> Iterator[str]:
        """The text in pieces, with `<|endoftext|>` between the documents; `on_read` gets `size` bytes in all.

        UserError where there is no such file, it is not what its name says, or there is no text in any of them.
        """
        return up_to(self.max_chars, self._read_all(on_read))

    def _read_all(self, on_read: OnRead) -> Iterator[str]:
        is_empty = True
        for path in self.files:
            for document in read_documents(path, self.encoding, self.field, on_read):
                for i, piece in enumerate(filter(None, document)):
                    if i == 0 and not is_empty:
                        yield END_OF_TEXT
                    yield piece
                    is_empty = False
        if is_empty:
            raise UserError(f"{self.name} is empty; give a text of at least a few thousand characters")

    @property
    def size(self) -> int:
        """Bytes that are read of its files: all, or about as many as the characters that are wanted."""
        n_bytes = sum(path.stat().st_size for path in self.files if path.exists())
        return n_bytes if self.max_chars is None else min(n_bytes, self.max_chars)

    def settings(self) -> str:
        """All but the files' content that the text depends on."""
        kinds = [(kind_of(path), is_packed(path)) for path in self.files]
        return repr((kinds, self.encoding, self.field, self.max_chars))


def open_corpus(spec: str, encoding: str = "utf-8", field: str | None = None, max_chars: int | None = None) -> Corpus:
    """The text that `spec` names: a file, a folder (with all folders in it), a glob, or several with commas between.

    UserError where one of its parts names no file. (Whether files can be read is seen when they are.)
    """
    return Corpus(spec, tuple(find_files(spec)), encoding, field, max_chars)


def read_text(spec: str, encoding: str = "utf-8", field: str | None = None) -> str:
    """The whole text that `spec` names, with `<|endoftext|>` between its documents."""
    return "".join(open_corpus(spec, encoding, field).read())


def find_files(spec: str) -> list[Path]:
    """The files that `spec` names, each once, in order; UserError where one of its parts names none."""
    # A name with a comma or a star in it is that file, if there is one.
    parts = [spec] if _exists(spec) else [part.strip() for part in spec.split(",") if part.strip()]
    if not parts:
        raise UserError(f"--dataset_path {spec!r} names no text; give a file, a folder or a glob")
    found = []
    for part in parts:
        if _exists(part):
            found += _in_folder(Path(part)) if Path(part).is_dir() else [Path(part)]
        elif any(char in part for char in "*?["):
            names = glob.glob(part, recursive=True)  # noqa: PTH207 (Path.glob knows no absolute patterns)
            matches = sorted(path for path in map(Path, names) if path.is_file())
            if not matches:
                raise UserError(f"{part}: no file has such a name; give a file, a folder or a glob that matches")
            found += matches
        else:
            found.append(Path(part))  # reading it says what is wrong
    return list(dict.fromkeys(found))


def _in_folder(folder: Path) -> list[Path]:
    """The files of a folder and its folders that have a known ending, without hidden ones and figures of trainings."""
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith(".") and not name.endswith(LOSSES))
        found += [path for path in paths if kind_of(path) in IN_FOLDERS and path.is_file()]
    if not found:
        raise UserError(f"{folder} is a folder without {' '.join(IN_FOLDERS)} files; put text into it, or name a file")
    return found


def _refuse(error: OSError) -> None:
    """What cannot be read is not silently left out."""
    raise UserError(f"cannot read {describe_os_error(error)}")


def _exists(spec: str) -> bool:
    try:
        return os.path.lexists(spec)
    except ValueError:  # a NUL in the name
        return False
