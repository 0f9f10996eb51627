"""HTML, PDF and DOCX: their text, and what is said about damaged ones."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import docx as python_docx
import pytest
from fpdf import FPDF
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.sources import markup, raw
from pypdf import PdfReader, PdfWriter

from .reading import documents, file_source

PAGE = """<html><head><title>Tide</title></head><body><nav><a href="/">Home</a> <a href="/x">Shop</a></nav>
<article><h1>The tide</h1><p>The tide comes in twice a day, and the harbour fills up to the third step of the pier.</p>
<p>The keeper writes the hour into a book that lies open beside the window of the tower.</p></article>
<footer>Copyright of nobody at all</footer></body></html>"""


def pdf(*pages: str) -> bytes:
    document = FPDF()
    document.set_font("helvetica", size=12)
    for page in pages:
        document.add_page()
        document.multi_cell(0, text=page)
    return bytes(document.output())


def only(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    (found,) = documents(file_source(path))
    assert found.path == path.name
    return found.text


def test_html_gives_its_main_text(tmp_path: Path) -> None:
    text = only(tmp_path / "a.html", PAGE.encode())
    assert "third step of the pier" in text
    assert "Shop" not in text
    assert "Copyright" not in text


def test_html_is_read_in_the_charset_that_it_declares(tmp_path: Path) -> None:
    page = '<html><head><meta charset="iso-8859-1"></head><body><p>Caf\u00e9 am Meer</p></body></html>'
    assert only(tmp_path / "a.html", page.encode("latin-1")) == "Caf\u00e9 am Meer"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b'<html><meta charset="iso-8859-1"><p>He said \x93yes\x94 twice', "He said \u201cyes\u201d twice"),
        (b'<html><meta charset="us-ascii"><p>It\x92s late \x81', "It\u2019s late"),
        ('<html><meta charset="utf-16"><p>The tide \u00e9'.encode(), "The tide \u00e9"),
        ('\ufeff<html><meta charset="latin-1"><p>The tide \u00e9'.encode(), "The tide \u00e9"),
    ],
    ids=["latin-1 means windows-1252", "ascii too", "utf-16 that is not", "a byte order mark wins"],
)
def test_html_is_decoded_as_browsers_do(tmp_path: Path, page: bytes, text: str) -> None:
    assert only(tmp_path / "a.html", page).strip() == text.strip()


@pytest.mark.parametrize(
    "page", ["<p>The tide comes in.</p>", "<div>The tide</div><p>comes in.</p>", "The tide comes in."]
)
def test_a_piece_of_html_keeps_its_text(tmp_path: Path, page: str) -> None:
    assert only(tmp_path / "a.html", page.encode()).split() == ["The", "tide", "comes", "in."]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (b'<meta charset="undefined"><p>x', r"a\.html: declares the charset 'undefined', but"),
        (
            b'<meta charset="unicode_escape"><p>\\ud800',
            r"a\.html: declares the charset 'unicode_escape', but",
        ),
        (b"<p>one\n<p>caf\xe9", r"a\.html, line 2: expected UTF-8 text, found byte 0xe9"),
        (b'<meta charset="shift_jis"><p>\xff\xff', r"a\.html: declares the charset 'shift_jis', but"),
        (b'<meta charset="nonsense"><p>x', r"a\.html: declares the charset 'nonsense', but"),
    ],
)
def test_html_in_an_unknown_encoding_is_refused(tmp_path: Path, page: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        only(tmp_path / "a.html", page)


def test_an_html_page_without_text_is_an_empty_document(tmp_path: Path) -> None:
    assert only(tmp_path / "a.htm", b"<html><body></body></html>") == ""


def test_a_pdf_gives_the_text_of_all_pages(tmp_path: Path) -> None:
    assert (
        only(tmp_path / "a.pdf", pdf("The first page.", "", "The third page."))
        == "The first page.\n\nThe third page."
    )


def test_a_damaged_pdf_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"a\.pdf, page 1: damaged, or not a PDF") as caught:
        only(tmp_path / "a.pdf", b"%PDF-1.4 and then nothing of the kind")
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_pdf_with_a_password_is_named(tmp_path: Path) -> None:
    writer, out = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret")))), io.BytesIO()
    writer.encrypt("word", algorithm="RC4-128")
    writer.write(out)
    with pytest.raises(ContractError, match=r"a\.pdf: the PDF asks for a password"):
        only(tmp_path / "a.pdf", out.getvalue())


def docx() -> bytes:
    document, out = python_docx.Document(), io.BytesIO()
    document.add_paragraph("Before.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table.rows[0].cells, ("lamp", "oil"), strict=True):
        cell.text = text
    merged = table.cell(1, 0).merge(table.cell(1, 1))
    merged.text = "both"
    document.add_paragraph("After.")
    document.save(out)
    return out.getvalue()


def test_a_docx_gives_paragraphs_and_tables_in_order(tmp_path: Path) -> None:
    assert only(tmp_path / "a.docx", docx()) == "Before.\nlamp\toil\nboth\nAfter."


def empty_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x", "y")
    return out.getvalue()


def scrambled() -> bytes:
    """A DOCX whose directory is whole and whose compressed text is not."""
    whole = bytearray(docx())
    start = whole.index(b"word/document.xml") + 40
    whole[start : start + 60] = bytes(60)
    return bytes(whole)


@pytest.mark.parametrize(
    "content",
    [b"no zip", empty_zip(), docx()[:-200], scrambled()],
    ids=["junk", "no docx", "cut", "scrambled"],
)
def test_a_damaged_docx_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ContractError, match=r"a\.docx: damaged, or not a DOCX") as caught:
        only(tmp_path / "a.docx", content)
    assert caught.value.code is Code.FILE_UNREADABLE


def lying_docx() -> bytes:
    """A DOCX whose directory says that its text is of 10 bytes."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(docx())) as whole,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for name in whole.namelist():
            made.writestr(name, whole.read(name) if name != "word/document.xml" else bytes(64 << 20))
    content = bytearray(out.getvalue())
    entry = content.rindex(b"word/document.xml") - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    content[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    return bytes(content)


def test_a_docx_that_lies_about_its_size_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "MAX_DOCUMENT_BYTES", 1 << 20)  # room for that is reserved
    content = lying_docx()
    tracemalloc.start()
    try:
        with pytest.raises(ContractError, match=r"a\.docx: damaged, or not a DOCX"):
            only(tmp_path / "a.docx", content)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_docx_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "MAX_DOCUMENT_BYTES", 1 << 10)
    with pytest.raises(ContractError, match=r"a\.docx: unpacks to .* MiB, more than"):
        only(tmp_path / "a.docx", docx())
