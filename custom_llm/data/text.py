"""Bytes of a person's file, and the text they are."""

from __future__ import annotations

import codecs
from pathlib import Path

from custom_llm.data.tokenizer import has_half_pair
from custom_llm.errors import UserError, describe_os_error


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UserError: there is none, it is a folder, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a text file or a folder of them") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the path of one text file") from None
    except OSError as error:
        raise UserError(f"cannot read {describe_os_error(error)}") from None
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(path)!r}: not a file name ({error})") from None


def decode(content: bytes, path: Path, encoding: str = "utf-8") -> str:
    """The text of a file's content, without a byte-order mark and with every line ending in \\n.

    Raises:
        UserError: it is not text in this encoding, with the offset of the first bad byte and the name of the file.
    """
    if encoding == "utf-8":  # unless told otherwise, believe the byte-order mark; UTF-32's begins like UTF-16's
        if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            encoding = "utf-32"
        elif content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding = "utf-16"
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise UserError(f"--encoding {encoding}: no such encoding; try utf-8, latin-1 or gb18030") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not {encoding} text (byte {content[error.start]:#04x} at offset {error.start}); name its "
            "encoding, such as --encoding latin-1, or save it as UTF-8"
        ) from None
    except UnicodeError as error:
        raise UserError(f"{path} cannot be read with --encoding {encoding}: {error}") from None
    return clean(text, path)


def clean(text: str, place: str | Path) -> str:
    """`text` with every line ending in \\n.

    Raises:
        UserError: there are characters in it that no text has; `place` says where it is from.
    """
    if has_half_pair(text):
        raise UserError(f"{place} has half a surrogate pair in it, which is no character; save it as UTF-8 text")
    if "\0" in text:
        raise UserError(
            f"{place} is not plain text (NUL byte at character {text.index(chr(0))}); save it as UTF-8 text"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
