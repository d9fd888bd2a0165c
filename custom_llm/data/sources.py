"""What a person names as the text to learn from: a file, several files, a folder or a glob."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import LOSSES
from custom_llm.data.clean import CLEANERS
from custom_llm.data.readers import IN_FOLDERS, LeftOut, kind_of, read_documents
from custom_llm.data.text import AS_TEXT, NoText, OnRead, packing
from custom_llm.tokenizer.base import END_OF_TEXT
from custom_llm.tokenizer.cut import up_to

NOT_ENTERED = frozenset("node_modules __pycache__ site-packages".split())
KINDS_SHOWN = 6
STARS = re.compile(r"(?<![^/\\])(?:\*\*(?:[/\\]+|$))+")  # `**` by itself between separators


@dataclass(frozen=True)
class Corpus:
    """Text in files, which may be more than fits into memory: it is read anew, piece by piece, each time."""

    name: str  # how messages call it
    files: tuple[Path, ...]  # read in this order
    encoding: str = "utf-8"  # of files of text
    field: str | None = None  # the key or column of the text in .jsonl, .json, .csv and .parquet (default: "text")
    max_chars: int | None = None  # after which the rest is left out
    clean: str = "none"  # what is left out of each document, one of CLEANERS
    in_folders: frozenset[Path] = frozenset()  # those of the files that only their folder was named of
    left_out: str = ""  # what of the folders is not among the files, for a person

    def read(self, on_read: OnRead = None, left_out: LeftOut | None = None) -> Iterator[str]:
        """The text in pieces, with `<|endoftext|>` between the documents; `on_read` gets `size` bytes in all.

        What is no text in a folder, and rows without one, are told to `left_out`. UserError where there is no such
        file, one that was named holds no text, or none of them does.
        """
        return up_to(self.max_chars, self._read_all(on_read, left_out or LeftOut()))

    def _read_all(self, on_read: OnRead, left_out: LeftOut) -> Iterator[str]:
        is_empty = True
        for path in self.files:
            is_begun = False
            try:
                for document in read_documents(path, self.encoding, self.field, on_read, left_out):
                    for i, piece in enumerate(filter(None, CLEANERS[self.clean](document))):
                        if i == 0 and not is_empty:
                            yield END_OF_TEXT
                        yield piece
                        is_empty, is_begun = False, True
            except NoText as error:
                if is_begun or path not in self.in_folders:
                    raise
                left_out.files.append(str(error))
        if is_empty:
            reason = f"holds no text; {left_out}" if str(left_out) else "is empty"
            raise UserError(f"{self.name} {reason}; give a text of at least a few thousand characters")

    @property
    def size(self) -> int:
        """Bytes that are read of its files: all, or about as many as the characters that are wanted."""
        n_bytes = sum(path.stat().st_size for path in self.files if path.exists())
        return n_bytes if self.max_chars is None else min(n_bytes, self.max_chars)

    def settings(self) -> str:
        """All but the files' content that the text depends on."""
        kinds = [(kind_of(path), packing(path), path in self.in_folders) for path in self.files]
        return repr((kinds, self.encoding, self.field, self.max_chars, self.clean))


def open_corpus(
    spec: str, encoding: str = "utf-8", field: str | None = None, max_chars: int | None = None, clean: str = "none"
) -> Corpus:
    """The text that `spec` names: a file, a folder (with all folders in it), a glob, or several with commas between.

    A file that is named in several ways, through links too, is one. UserError where one of its parts names no file.
    (Whether files can be read is seen when they are.)
    """
    found = _Found()
    # A name with a comma or a star in it is that file, if there is one.
    parts = [spec] if _exists(spec) else [part.strip() for part in spec.split(",") if part.strip()]
    if not parts:
        raise UserError(f"--dataset_path {spec!r} names no text; give a file, a folder or a glob")
    for part in parts:
        if not _exists(part) and any(char in part for char in "*?["):
            matches = sorted(path for path in map(Path, expand(part)) if path.is_file())
            if not matches:
                raise UserError(f"{part}: no file has such a name; give a file, a folder or a glob that matches")
            for path in matches:
                found.add(path)
        elif _exists(part) and Path(part).is_dir():
            found.add_folder(Path(part))
        else:
            found.add(Path(part))  # reading it says what is wrong
    files = tuple(found.files.values())
    return Corpus(spec, files, encoding, field, max_chars, clean, frozenset(found.in_folders), found.left_out())


def read_text(spec: str, encoding: str = "utf-8", field: str | None = None) -> str:
    """The whole text that `spec` names, with `<|endoftext|>` between its documents."""
    return "".join(open_corpus(spec, encoding, field).read())


class _Found:
    """Files, each once, in the order in which they were named."""

    def __init__(self) -> None:
        self.files: dict[object, Path] = {}  # what is the same for one file under several names → the first of them
        self.in_folders: set[Path] = set()
        self._left_out: Counter[str] = Counter()

    def add(self, path: Path) -> Path:
        return self.files.setdefault(_identity(path), path)

    def add_folder(self, folder: Path) -> None:
        """The files in a folder and its folders that may be text, without hidden ones and what this program wrote."""
        n_files, others = 0, Counter()
        for parent, folders, names in os.walk(folder, onerror=_refuse):
            reasons = {name: _not_entered(Path(parent, name)) for name in sorted(folders)}
            others.update(filter(None, reasons.values()))
            folders[:] = [name for name, reason in reasons.items() if not reason]
            for path in (Path(parent, name) for name in sorted(names)):
                if reason := _not_read(path):
                    others[reason] += 1
                    continue
                n_files += 1
                if self.add(path) is path:
                    self.in_folders.add(path)
        self._left_out += others
        if not n_files:
            what = f"without a text but has {_listed(others)}" if others else "without a text"
            raise UserError(
                f"{folder} is a folder {what}; name what is text with a glob ({folder / '*'}), or {AS_TEXT}"
            )

    def left_out(self) -> str:
        """What there is in the folders besides, in a few words."""
        return _listed(self._left_out)


def _listed(kinds: Counter[str]) -> str:
    shown = [f"{n} {kind}" for kind, n in kinds.most_common(KINDS_SHOWN)]
    rest = kinds.total() - sum(n for _, n in kinds.most_common(KINDS_SHOWN))
    return ", ".join([*shown, *[f"{rest} others"][: rest > 0]])


def _not_entered(folder: Path) -> str:
    """Why a folder inside of a named one is not looked into; "" if it is."""
    if folder.name.startswith("."):
        return "hidden"
    if folder.is_symlink():
        return "links to folders"
    if folder.name in NOT_ENTERED or (folder / "pyvenv.cfg").exists():
        return "of programs (node_modules, …)"
    is_model = (folder / "model_config.pth").exists() or (
        (folder / "config.json").exists() and any(folder.glob("*.safetensors"))
    )
    return "of models" if is_model else ""


def _not_read(path: Path) -> str:
    """Why a file in a named folder is not read; "" if it is."""
    if path.name.startswith("."):
        return "hidden"
    if path.name.endswith((LOSSES, ".report.html")):
        return "of models"
    if kind_of(path) not in IN_FOLDERS:
        return kind_of(path) or "without an ending"
    return "" if path.is_file() else "no files"


def _identity(path: Path) -> object:
    """The same for all names of a file."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # reading it says what is wrong
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def expand(pattern: str) -> set[str]:
    """The names that match a glob; `**` stands for a folder and all in it, without hidden ones and those behind links.

    (That of the library follows links, without end where two of them lead back.)
    """
    head, *tail = STARS.split(pattern, maxsplit=1)
    if not tail:
        return set(glob.glob(pattern))  # noqa: PTH207 (Path.glob knows no absolute patterns)
    found = set()
    for base in glob.glob(head) if head else [""]:  # noqa: PTH207
        for parent, folders, _ in os.walk(base or "."):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.relpath(parent, base or ".")
            prefix = base if inside == "." else str(Path(base, inside)) + os.sep
            found |= expand(glob.escape(prefix) + (tail[0] or "*"))
    return found


def _refuse(error: OSError) -> None:
    """What cannot be read is not silently left out."""
    raise UserError(f"cannot read {describe_os_error(error)}")


def _exists(spec: str) -> bool:
    try:
        return os.path.lexists(spec)
    except ValueError:  # a NUL in the name
        return False
