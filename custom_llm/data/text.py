"""Bytes of a person's file, and the text they are, piece by piece."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.text import encoding_of, has_half_pair, unix_lines

OnRead = Callable[[int], object] | None  # called with the number of bytes read since the last call

PIECE = 1 << 20  # bytes read at a time
OF_HOST_NAMES = ("idna", "punycode")  # encodings that take the square of the time


def read_file(path: Path, encoding: str = "utf-8", on_read: OnRead = None) -> Iterator[str]:
    """The text of a file in pieces, without a byte-order mark and with every line ending in \\n.

    It is unpacked if its name ends in .gz; `on_read` gets the bytes of the file, packed or not. UserError where it
    cannot be read, or is not text in this encoding.
    """
    yield from clean(decode(_read(path, on_read), path, encoding), path)


def is_packed(path: Path) -> bool:
    """Whether a file is to be unpacked with gzip."""
    return path.name.lower().endswith(".gz")


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


def _read(path: Path, on_read: OnRead) -> Iterator[bytes]:
    with open_bytes(path) as raw:
        file = gzip.GzipFile(fileobj=raw) if is_packed(path) else raw
        position = 0
        try:
            while content := file.read(PIECE):
                if on_read is not None:
                    on_read(raw.tell() - position)
                    position = raw.tell()
                yield content
        except (OSError, EOFError, zlib.error) as error:
            if is_packed(path) and not (isinstance(error, OSError) and error.errno):
                raise UserError(f"{path} is not a whole gzip file: {error}") from None
            raise UserError(f"cannot read {path}: {describe_os_error(error)}") from None


def decode(contents: Iterable[bytes], path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The text of a file's content, without a byte-order mark.

    UserError where it is not text in this encoding, with the offset of the first bad byte and the name of the file.
    """
    contents = iter(contents)
    start = next(contents, b"")
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
            raise UserError(
                f"{path} is not {encoding} text (byte {error.object[error.start]:#04x} at offset {offset}); name "
                "its encoding, such as --encoding latin-1, or save it as UTF-8"
            ) from None
        except UnicodeError as error:
            raise UserError(f"{path} cannot be read with --encoding {encoding}: {error}") from None
        if text:
            yield text.removeprefix(mark)
            mark = ""


def clean(pieces: Iterable[str], place: str | Path) -> Iterator[str]:
    """The text that `pieces` are of with every line ending in \\n, in other pieces.

    UserError where there are characters in it that no text has; `place` says where it is from.
    """
    n_characters, last = 0, ""
    for text in pieces:
        if not text.isascii() and has_half_pair(text):
            raise UserError(f"{place} has half a surrogate pair in it, which is no character; save it as UTF-8 text")
        if "\0" in text:
            raise UserError(
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
