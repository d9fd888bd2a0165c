"""Pages, office documents, e-books and PDF: the text a person reads in them, and one line where there is none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from custom_llm.common.errors import UserError
from custom_llm.data.sources import open_corpus, read_text
from custom_llm.data.text import PIECE

PAGE = """<!DOCTYPE html><html><head><title>A walk</title><style>p {}</style>
<script>var a = "<p>no</p>";</script>
<body><nav><a href="/">Home</a></nav><h1>A  walk</h1><p>Mia &amp; Ben
walked.<br>Far.</p><ul><li>One<li><b>T</b>wo</ul><pre>a
  b</pre><table><tr><td>x</td><td>y</td></tr></table><!-- no --></body></html>"""
READ = "Home\n\nA walk\n\nMia & Ben walked.\nFar.\n\nOne\nTwo\n\na\n  b\n\nx y\n"
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
WORD = f"""<w:document {W}><w:body><w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>Mia </w:t></w:r>
<w:r><w:t xml:space="preserve">and</w:t><w:tab/><w:t>Ben.</w:t><w:br/><w:t>Far.</w:t></w:r><w:del><w:r>
<w:delText>no</w:delText></w:r></w:del></w:p><w:p/><w:tbl><w:tr><w:tc><w:p><w:r><w:t>x</w:t></w:r></w:p></w:tc></w:tr></w:tbl></w:body>
</w:document>"""
ODT = """<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:text><text:tracked-changes><text:p>no
</text:p></text:tracked-changes><text:h>A walk</text:h><text:p>Mia <text:span>and</text:span> Ben.<text:note><text:p>no
</text:p></text:note><text:line-break/>Far<text:s text:c="3"/>off.</text:p></office:text></office:body>
</office:document-content>"""
CONTAINER = '<c xmlns="urn:c"><rootfiles><rootfile full-path="OEBPS/a.opf"/></rootfiles></c>'
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="b" href="two.xhtml"/><item id="a"
href="on%20e.xhtml"/></manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""


def make_zip(path: Path, **contents: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def make_pdf(path: Path, *lines: str, password: str = "") -> Path:
    writer = pypdf.PdfWriter()
    font = DictionaryObject({
        NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
        NameObject("/BaseFont"): NameObject("/Helvetica"),
    })  # fmt: skip
    for line in lines:
        page = writer.add_blank_page(200, 200)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 10 100 Td ({line}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)
    return path


def make(folder: Path, kind: str) -> tuple[Path, str]:
    """A file of a kind, and the text in it."""
    path = folder / f"a.{kind}"
    if kind == "html":
        path.write_text(PAGE, encoding="utf-8")
        return path, READ
    if kind == "docx":
        return make_zip(path, **{"word/document.xml": WORD}), "Mia and\tBen.\nFar.\n\nx\n"
    if kind == "odt":
        return make_zip(path, **{"content.xml": ODT}), "A walk\nMia and Ben.\nFar   off.\n"
    if kind == "pdf":
        return make_pdf(path, "Mia and Ben.", "Far."), "Mia and Ben.\nFar.\n"
    chapters = {"OEBPS/two.xhtml": "<html><p>Two.</p></html>", "OEBPS/on e.xhtml": "<html><p>One.</p></html>"}
    return make_zip(
        path, **{"META-INF/container.xml": CONTAINER, "OEBPS/a.opf": PACKAGE}, **chapters
    ), "One.\n\nTwo.\n\n"


KINDS = ["html", "docx", "odt", "epub", "pdf"]


@pytest.mark.parametrize("kind", KINDS)
def test_its_text_is_read(tmp_path, kind):
    path, text = make(tmp_path, kind)
    assert read_text(str(path)) == text
    assert open_corpus(str(tmp_path)).files == (path,)  # in a folder, too


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_is_damaged_is_one_line(tmp_path, kind):
    path, _ = make(tmp_path, kind)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:40] + b"\xff" * 40 + content[80:], b"{}"):
        path.write_bytes(damaged)
        try:
            text = read_text(str(path))
        except UserError as error:
            assert str(error).startswith(f"{path} is not a whole .{kind} file: "), error
        else:
            assert kind == "pdf" and text  # which mends itself
    with pytest.raises(UserError, match=r"a\.zip is no text but a zip file; unpack it and .*\(in Word: Save as,"):
        read_text(str(make_zip(tmp_path / "a.zip", a="b")))


def test_a_locked_file_and_one_of_pictures(tmp_path):
    with pytest.raises(UserError, match=r"a\.pdf is locked with a password; save it without"):
        read_text(str(make_pdf(tmp_path / "a.pdf", "Mia.", password="x")))
    with pytest.raises(UserError, match=r"b\.pdf holds pictures of pages and no text; have it recognised first"):
        read_text(str(make_pdf(tmp_path / "b.pdf", "")))


@pytest.mark.parametrize("name", ["iso-8859-1", "windows-1251", "utf-8", "nonsense"])
def test_a_page_names_its_encoding(tmp_path, name):
    text = {"iso-8859-1": "café “”", "windows-1251": "мир"}.get(name, "café")
    encoding = {"iso-8859-1": "cp1252", "nonsense": "utf-8"}.get(name, name)
    (tmp_path / "a.html").write_bytes(f'<meta charset="{name}"><p>{text}'.encode(encoding))
    assert read_text(str(tmp_path / "a.html")) == f"{text}\n"


@given(
    st.lists(
        st.sampled_from(["<p>", "</p>", "<br/>", "a", " ", "<script>", "</script>", "<pre>", "&lt;", "<", "]]>", "é"])
    )
)
def test_any_page_is_read_alike_in_any_pieces(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("page") / "a.html"
    page = "".join(parts)
    texts = []
    for before in (0, PIECE - 3):  # so that a piece ends in the middle of it
        path.write_text(f"<p>begin{' ' * before}</p>{page}", encoding="utf-8")
        texts.append(read_text(str(path)))
    assert texts[0] == texts[1]
    assert "<script>" not in texts[0]
