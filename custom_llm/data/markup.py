"""Texts that are written for the eye, as the text alone: web pages, what office programs write, e-books and PDF.

All but PDF are HTML, or zip files of XML or HTML, which Python's own library reads piece by piece.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import IO, Any
from urllib.parse import unquote
from xml.etree import ElementTree

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.steps import install
from custom_llm.data.text import PIECE, NoText, decode

# Elements of HTML whose content is no text of the page.
UNSEEN = frozenset("title script style template noscript svg math iframe object select textarea button".split())
BLOCKS = frozenset(
    """
    address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer form h1
    h2 h3 h4 h5 h6 header hr html legend li main nav ol p pre section summary table tbody td tfoot th thead title tr ul
    """.split()
)
PARAGRAPHS = frozenset("blockquote dl figure h1 h2 h3 h4 h5 h6 ol p pre table ul".split())  # with a line between them
CHARSET = re.compile(rb"<(?:meta[^>]*?charset|\?xml[^>]*?encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
# Of Word and OpenDocument: elements that are not, or no longer, in the text; and those that are a character of it.
HIDDEN = frozenset("del moveFrom Fallback pPr tracked-changes annotation note".split())
AS_CHARACTER = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "noBreakHyphen": "\u2011", "s": " "}
REPEATED = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}c"  # how many spaces


def read_markup(kind: str, file: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    """The text of a file with one of the endings in FORMS, in pieces.

    encoding: of a web page that does not name its own. NoText where it is damaged, locked, or holds no text; UserError
    where it cannot be read.
    """
    try:
        yield from FORMS[kind](file, path, encoding)
    except UserError:
        raise
    except Exception as error:  # of damaged files these libraries raise whatever comes of it
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"cannot read {path}: {describe_os_error(error)}") from None
        locked = "crypted" in str(error)
        reason = "is locked with a password; save it without" if locked else f"is not a whole {kind} file: {error}"
        raise NoText(f"{path} {reason}") from None


def _html(file: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    start = file.read(PIECE)
    if encoding == "utf-8" and (named := CHARSET.search(start[:4096])):
        name = named[1].decode("ascii").lower()
        with contextlib.suppress(LookupError):  # one that nobody knows
            # As browsers take them: what can be searched so is not UTF-16, and Latin-1 is Windows' superset of it.
            named = codecs.lookup("utf-8" if name.startswith("utf-16") else name).name
            encoding = "cp1252" if named in ("iso8859-1", "ascii") else named
    parser = _Page()
    for text in decode(_chunks(file, start), path, encoding):
        parser.feed(text)
        yield parser.take()
    parser.close()
    yield parser.take() + "\n"


def _chunks(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    while start:
        yield start
        start = file.read(PIECE)


class _Page(HTMLParser):
    """The text of a page, as it would be copied from a browser."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._text: list[str] = []
        self._unseen: list[str] = []  # the open elements from the first unseen one on
        self._preformatted = 0
        self._breaks = 0  # line ends that are due before the next text
        self._space, self._begun = False, False

    def take(self) -> str:
        """The text since the last call."""
        text, self._text = "".join(self._text), []
        return text

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if self._unseen or tag in UNSEEN:
            self._unseen += [tag] if tag in UNSEEN else []
        elif tag == "br":
            self._breaks += 1
        elif tag in ("td", "th"):
            self._space = True
        else:
            self._block(tag)
            self._preformatted += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        if tag not in UNSEEN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag in self._unseen:
                del self._unseen[self._unseen.index(tag) :]
        else:
            self._block(tag)
            self._preformatted = max(0, self._preformatted - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._preformatted:
            self._write(data)
            return
        words = re.split(r"[ \t\n\r\f]+", data)  # and no others: a non-breaking space is a character
        if words[0] == "":
            self._space = True
        text = " ".join(filter(None, words))
        if text:
            self._write(text)
            self._space = len(words) > 1 and words[-1] == ""

    def _block(self, tag: str) -> None:
        if tag in BLOCKS and tag not in ("td", "th"):
            self._breaks = max(self._breaks, 2 if tag in PARAGRAPHS else 1)

    def _write(self, text: str) -> None:
        if self._begun and self._breaks:
            self._text.append("\n" * self._breaks)
        elif self._begun and self._space:
            self._text.append(" ")
        self._text.append(text)
        self._breaks, self._space, self._begun = 0, False, True


def _word(file: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive, archive.open("word/document.xml") as content:
        yield from _paragraphs(content, "t")


def _open_document(file: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive, archive.open("content.xml") as content:
        yield from _paragraphs(content, "")


def _paragraphs(content: IO[bytes], holder: str) -> Iterator[str]:
    """The paragraphs of XML, a line each; `holder` is the one kind of element that holds text, "": any does."""
    parser = ElementTree.XMLPullParser(("start", "end"))
    depth = hidden = 0  # of open paragraphs, and of open elements that are left out
    while piece := content.read(PIECE):
        parser.feed(piece)
        for event, element in parser.read_events():
            name, change = _local(element), 1 if event == "start" else -1
            hidden += change * (name in HIDDEN)
            depth += change * (name in ("p", "h"))
            if event == "end" and depth == 0 and name in ("p", "h"):
                if not hidden:
                    yield _text_of(element, holder).strip("\n") + "\n"
                element.clear()
    parser.close()


def _text_of(element: ElementTree.Element, holder: str) -> str:
    name = _local(element)
    if name in HIDDEN:
        return ""
    parts = [AS_CHARACTER.get(name, "") * min(1000, int(element.get(REPEATED, "1")))]
    parts.append((element.text or "") if holder in ("", name) else "")
    for child in element:
        parts += [_text_of(child, holder), (child.tail or "") if not holder else ""]
    text = "".join(parts)
    return f"\n{text}\n" if name == "p" else text  # as in a box of text inside a paragraph


def _local(element: ElementTree.Element) -> str:
    """The name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def _book(file: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    with zipfile.ZipFile(file) as archive:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        package = "".join(each.get("full-path", "") for each in container.iter() if _local(each) == "rootfile")
        content = ElementTree.fromstring(archive.read(package))
        items = {each.get("id"): each.get("href", "") for each in content.iter() if _local(each) == "item"}
        for each in filter(lambda each: _local(each) == "itemref", content.iter()):
            name = normpath(join(dirname(package), unquote(items.get(each.get("idref"), ""))))
            with archive.open(name) as chapter:
                yield from _html(chapter, path, "utf-8")
                yield "\n"


def _pdf(file: IO[bytes], path: Path, encoding: str) -> Iterator[str]:
    try:
        import pypdf
    except ImportError:
        raise NoText(f"{path}: reading PDF needs pypdf: {install('data')}") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it warns of every oddity
    key = (path, path.stat().st_mtime_ns)
    if key not in _PDF_TEXTS:  # a text is read several times, and this is slow
        pages = (page.extract_text() for page in pypdf.PdfReader(file).pages)
        text = "".join(f"{page}\n" for page in pages).replace("\0", "")
        _PDF_TEXTS[key] = text.encode("utf-8", "ignore").decode()
    if not _PDF_TEXTS[key].strip():
        raise NoText(f"{path} holds pictures of pages and no text; have it recognised first, as ocrmypdf does")
    yield _PDF_TEXTS[key]


_PDF_TEXTS: dict[tuple[Path, int], str] = {}
FORMS: dict[str, Callable[[IO[bytes], Path, str], Iterator[str]]] = {
    ".html": _html, ".htm": _html, ".xhtml": _html, ".docx": _word, ".odt": _open_document, ".epub": _book, ".pdf": _pdf
}  # fmt: skip
