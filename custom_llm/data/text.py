"""Bytes of a person's file, and the text they are, piece by piece."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import IO

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.text import encoding_of, has_half_pair, unix_lines

OnRead = Callable[[int], object] | None  # called with the number of bytes read since the last call

PIECE = 1 << 20  # bytes read at a time
LONGEST = 1 << 28  # characters of a line, of a field in CSV, or of a .json file, which are held in memory
OF_HOST_NAMES = ("idna", "punycode")  # encodings that take the square of the time
PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}  # ending → module of the standard library that unpacks it
AS_TEXT = "save it as text (in Word: Save as, Plain text) and give that"
# How files begin that are no text → what they are, and the way out.
OTHER_FORMS = {
    rb"PK\x03\x04": f"a zip file; unpack it and give the folder. Or if an office program wrote it, {AS_TEXT}",
    rb"(?s:.{257})ustar": "a tar file; unpack it and give the folder",
    rb"\xd0\xcf\x11\xe0": f"a file of an old office program; {AS_TEXT}",
    rb"\{\\rtf": f"RTF; {AS_TEXT}",
    rb"%PDF-": "a PDF; let its name end in .pdf",
    rb"\x1f\x8b": "packed with gzip; unpack it first",
    rb"BZh[1-9]1AY": "packed with bzip2; unpack it first",
    rb"\xfd7zXZ": "packed with xz; unpack it first",
    rb"\x28\xb5\x2f\xfd": "packed with zstd; unpack it first",
    rb"PAR1[\0-\x19]": "Parquet; let its name end in .parquet",
    rb"\x89PNG|\xff\xd8\xff|GIF8[79]a": "a picture; give a text",
}


class NoText(UserError):
    """A file that is there and may be read, but holds no text. Where a whole folder is read, it is left out."""


def read_file(path: Path, encoding: str = "utf-8", on_read: OnRead = None) -> Iterator[str]:
    """The text of a file in pieces, without a byte-order mark and with every line ending in \\n.

    It is unpacked if its name ends as those of PACKED; `on_read` gets the bytes of the file, packed or not. UserError
    where it cannot be read; NoText where it is not text in this encoding.
    """
    yield from clean(decode(_read(path, on_read), path, encoding), path)


def packing(path: Path) -> str:
    """Which of PACKED the name of a file ends in; "" where in none."""
    return next(filter(path.name.lower().endswith, PACKED), "")


def open_bytes(path: Path) -> IO[bytes]:
    """A file of a person, to read from; UserError where there is none, it is a folder or a pipe, or closed to us."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{path} is not a regular file; save the text to one first")
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a text file or a folder of them") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the path of one text file") from None
    except OSError as error:
        raise UserError(f"cannot read {describe_os_error(error)}") from None
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(path)!r}: not a file name ({error})") from None


def unpacked(raw: IO[bytes], path: Path) -> IO[bytes]:
    """What an open file holds, packed or not; UserError where this Python was built without what unpacks it."""
    if not packing(path):
        return raw
    try:
        return import_module(PACKED[packing(path)]).open(raw, "rb")
    except ImportError:
        raise UserError(f"{path}: this Python cannot unpack {packing(path)} files; unpack it first") from None


def _read(path: Path, on_read: OnRead) -> Iterator[bytes]:
    with open_bytes(path) as raw:
        file, position = unpacked(raw, path), 0
        try:
            while content := file.read(PIECE):
                if on_read is not None:
                    on_read(raw.tell() - position)
                    position = raw.tell()
                yield content
        except Exception as error:  # each of those modules has errors of its own
            if isinstance(error, OSError) and error.errno:
                raise UserError(f"cannot read {path}: {describe_os_error(error)}") from None
            if not packing(path):
                raise
            raise NoText(f"{path} is not a whole {packing(path)} file: {error}") from None


def decode(contents: Iterable[bytes], path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The text of a file's content, without a byte-order mark.

    UserError where there is no such encoding; NoText where it is not text in this one, with the offset of the first bad
    byte and the name of the file.
    """
    contents = iter(contents)
    start = next(contents, b"")
    for begins, form in OTHER_FORMS.items():
        if re.match(begins, start):
            raise NoText(f"{path} is no text but {form}")
    if encoding == "utf-8":  # unless told otherwise, believe the byte-order mark
        encoding = encoding_of(start)
    try:
        "".encode(encoding)  # LookupError as well for codecs that make bytes of bytes
        if codecs.lookup(encoding).name in OF_HOST_NAMES:
            raise LookupError(encoding)
        decoder = codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError):
        raise UserError(f"--encoding {encoding}: no such encoding; try utf-8, latin-1 or gb18030") from None
    n_bytes, mark = 0, "\ufeff"
    for content in chain([start], contents, [b""]):
        n_bytes += len(content)
        try:
            text = decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            offset = n_bytes - len(error.object) + error.start  # error.object begins with what was left from before
            # No encoding makes text of what has a NUL in it. What is no character in Latin-1 is one of Windows.
            likely = "cp1252" if re.search(rb"[\x80-\x9f]", error.object[error.start :]) else "latin-1"
            way_out = (
                AS_TEXT if b"\0" in start else f"name its encoding, such as --encoding {likely}, or save it as UTF-8"
            )
            raise NoText(
                f"{path} is not {encoding} text (byte {error.object[error.start]:#04x} at offset {offset}); {way_out}"
            ) from None
        except UnicodeError as error:
            raise NoText(f"{path} cannot be read with --encoding {encoding}: {error}") from None
        if text:
            yield text.removeprefix(mark)
            mark = ""


def clean(pieces: Iterable[str], place: str | Path) -> Iterator[str]:
    """The text that `pieces` are of with every line ending in \\n, in other pieces.

    NoText where there are characters in it that no text has; `place` says where it is from.
    """
    n_characters, last = 0, ""
    for text in pieces:
        if not text.isascii() and has_half_pair(text):
            raise NoText(f"{place} has half a surrogate pair in it, which is no character; save it as UTF-8 text")
        if "\0" in text:
            raise NoText(
                f"{place} is not plain text (NUL byte at character {n_characters + text.index(chr(0))}); "
                "save it as UTF-8 text"
            )
        n_characters += len(text)
        if "\r" in text or last:
            text = last + text
            last = "\r" if text.endswith("\r") else ""  # it may be the first half of \r\n
            text = unix_lines(text.removesuffix("\r"))
        yield text
    if last:
        yield "\n"


def lines(pieces: Iterable[str], place: str | Path) -> Iterator[str]:
    """The lines of a text with their \\n. (Not splitlines: it splits at characters that may stand in a line, too.)

    UserError where one of them is longer than LONGEST.
    """
    rest: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        rest.append(first)
        if sum(map(len, rest)) > LONGEST:
            raise UserError(f"{place} has a line of more than {LONGEST:,} characters; put a document on each line")
        for line in others:
            yield "".join(rest) + "\n"
            rest = [line]
    if any(rest):
        yield "".join(rest)
