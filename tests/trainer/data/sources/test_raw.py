"""Compressions, encodings and the errors that name the line."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.sources import raw, read_utf8

from .reading import documents, file_source


def zstd(data: bytes) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(data)
    return bytes(buffer.getvalue())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


def parquet(texts: list[str]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), out)
    return out.getvalue()


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"one"),
        ("a.md", b"one"),
        ("a.jsonl", b'{"text": "one"}'),
        ("a.csv", b"text\none\n"),
        ("a.parquet", parquet(["one"])),
        ("a.html", b"<html><body><p>one</p></body></html>"),
    ],
)
def test_every_kind_is_read_in_every_compression(
    tmp_path: Path, name: str, content: bytes, compression: str
) -> None:
    path = tmp_path / f"{name}{compression}"
    path.write_bytes(COMPRESS[compression](content))
    (found,) = documents(file_source(path))
    assert found.text == "one"
    assert found.path.startswith(path.name)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("damage", ["cut", "junk"])
def test_a_damaged_archive_is_named_with_the_line_that_it_reached(
    tmp_path: Path, compression: str, damage: str
) -> None:
    lines = b"".join(b'{"text": "row %d"}\n' % (n * 2654435761 % 2**32) for n in range(40_000))
    whole = COMPRESS[compression](lines)
    path = tmp_path / f"rows.jsonl{compression}"
    path.write_bytes(whole[: len(whole) * 2 // 3] if damage == "cut" else b"no archive at all")
    with pytest.raises(
        ContractError, match=r"rows\.jsonl\.\w+, after line \d+: the \w+ data is damaged"
    ) as caught:
        documents(file_source(path))
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_compressed_parquet_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(parquet(["one"] * 1000))[:-40])
    with pytest.raises(ContractError, match=r"a\.parquet\.gz: the gz data is damaged or cut off"):
        documents(file_source(path))


def test_archives_of_several_members_are_read_to_the_end(tmp_path: Path) -> None:
    for compression, compress in COMPRESS.items():
        path = tmp_path / f"a.txt{compression}"
        path.write_bytes(compress(b"one ") + compress(b"two"))
        assert read_utf8(path, path.name) == "one two"


def test_line_ends_and_byte_order_marks_are_normalised(tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    assert documents(file_source(tmp_path / "dos.txt"))[0].text == "one\ntwo\nthree"
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n')
    assert documents(file_source(tmp_path / "rows.jsonl"))[0].text == "one"


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be"])
def test_the_byte_order_mark_of_another_unicode_encoding_is_named(
    tmp_path: Path, suffix: str, encoding: str
) -> None:
    path = tmp_path / f"wide.{suffix}"
    path.write_bytes(
        "\ufefftext\n".encode(encoding) if encoding == "utf-16-be" else "text\n".encode(encoding)
    )
    with pytest.raises(
        ContractError, match=rf"wide\.{suffix}, line 1: .* byte order mark of {encoding[:6].upper()}"
    ):
        documents(file_source(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("latin.txt", "one\ntwo\ncaf\u00e9\n"),
        ("latin.jsonl", '{"text": "1"}\n\n{"text": "caf\u00e9"}\n'),
        ("latin.csv", 'text\n"two\ncaf\u00e9"\n'),
    ],
)
def test_wrong_encoding_names_file_and_line(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(
        ContractError, match=r"latin\.\w+, line 3: expected UTF-8 text, found byte 0xe9"
    ) as caught:
        documents(file_source(tmp_path / name))
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_document_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "MAX_DOCUMENT_BYTES", 1 << 20)
    (tmp_path / "big.txt.gz").write_bytes(gzip.compress(bytes((1 << 20) + 1)))
    with pytest.raises(ContractError, match=r"big\.txt\.gz is one document of more than 1 MiB; split it"):
        documents(file_source(tmp_path / "big.txt.gz"))
    (tmp_path / "big.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n' + b" " * ((1 << 20) + 1)))
    with pytest.raises(ContractError, match=r"big\.jsonl\.gz, line 2: longer than 1 MiB"):
        documents(file_source(tmp_path / "big.jsonl.gz"))


def test_a_folder_in_place_of_a_file_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="rows is a folder; expected a file") as caught:
        read_utf8(tmp_path, "rows")
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no file rows") as caught:
        read_utf8(tmp_path / "none", "rows")
    assert caught.value.code is Code.CORPUS_MISSING
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ContractError, match="rows cannot be read: Too many levels of symbolic links"):
        read_utf8(tmp_path / "circle", "rows")
