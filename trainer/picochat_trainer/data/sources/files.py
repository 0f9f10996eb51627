"""From the sources of a dataset to their files, readable or not, in a fixed order.

Paths in the records are relative to the source, so that equal input gives an equal manifest on every machine.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pydoc_data import topics
from typing import Final

from picochat_client.folders import EXCLUDED, MISSING, is_excluded, is_read, shown_name, walk
from picochat_contract.data_configs import (
    COMPRESSIONS,
    CORPUS_SUFFIXES,
    ArtifactSource,
    DatasetRef,
    FileSource,
    LeftOutSource,
    PydocSource,
    ReadOptions,
    Source,
    split_suffix,
)
from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.documents import Document
from picochat_trainer.data.sources import columnar, markup, records
from picochat_trainer.data.sources.raw import read_utf8

Texts = Iterator[tuple[str, str]]
"""Name of the document (that of the file, or with `:line` or `:row`) and its text."""
READERS: Final[dict[str, Callable[[Path, str, str | None], Texts]]] = {
    ".jsonl": records.jsonl_texts,
    ".csv": records.csv_texts,
    ".parquet": columnar.parquet_texts,
    ".html": markup.html_texts,
    ".htm": markup.html_texts,
    ".pdf": markup.pdf_texts,
    ".docx": markup.docx_texts,
}
"""By kind; every other kind is plain text. Arguments: path, name in messages, text field."""
LIBRARIES: Final = {
    ".html": ("trafilatura", "missing_html_dependency"),
    ".htm": ("trafilatura", "missing_html_dependency"),
    ".pdf": ("pypdf", "missing_pdf_dependency"),
    ".docx": ("docx", "missing_docx_dependency"),
}


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a source, readable or not."""

    path: str
    source: int
    """0-based index into the sources; files of one upload group have the index of the first."""
    label: str | None
    license: str | None
    extension: str
    """In lower case, with the compression: `.jsonl.gz`."""
    documents: Callable[[], Iterator[Document]] | None
    """Reads them one at a time; stop early by closing the generator. None where the file is left out."""
    reason: str | None = None
    """Why it is left out: recipe_excluded, unsupported_extension, missing_source, link_outside_folder,
    link_to_folder, missing_pdf_dependency, missing_docx_dependency or missing_html_dependency."""


def open_sources(sources: Sequence[Source], *, artifact_path: Callable[[str], Path]) -> Iterator[SourceFile]:
    """The files of `sources` in order; `artifact_path` says where the upload with a digest lies."""
    groups: dict[str, int] = {}
    for index, source in enumerate(sources):
        match source:
            case PydocSource():
                yield _Origin(source, index).readable("pydoc", "", _pydoc_texts)
            case FileSource():
                yield from _named_files(source, index)
            case ArtifactSource():
                first = groups.setdefault(source.group, index) if source.group else index
                yield _upload(source, first, artifact_path(source.digest))
            case LeftOutSource():
                yield _Origin(source, index).left_out(source.path, source.reason)
            case DatasetRef():
                raise ContractError(
                    Code.INVALID_VALUE,
                    f"dataset.sources: the dataset {source.name!r} is registered on a server, which alone can open "
                    "it; submit the run there, or give the files as sources of type file",
                    param="dataset.sources",
                )


@dataclass(frozen=True)
class _Origin:
    """The source of a file and its index; makes the records."""

    source: PydocSource | FileSource | ArtifactSource | LeftOutSource
    index: int

    def readable(self, name: str, extension: str, texts: Callable[[], Texts]) -> SourceFile:
        def documents() -> Iterator[Document]:
            for path, text in texts():
                yield Document(
                    path=path,
                    text=text,
                    source=self.index,
                    label=self.source.label,
                    license=self.source.license,
                )

        return self._file(name, extension, documents, None)

    def left_out(self, name: str, reason: str) -> SourceFile:
        return self._file(name, "".join(split_suffix(name)), None, reason)

    def named(self, path: Path, name: str, options: ReadOptions) -> SourceFile:
        """A file that the user named: it is read, or it is an error."""
        if not is_read(name):
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{name}: expected one of {', '.join(CORPUS_SUFFIXES)}, also with {', '.join(COMPRESSIONS)}; got "
                f"{''.join(split_suffix(name)) or 'no extension'!r}; convert it to text",
                param=name,
            )
        if (missing := _missing_library(name)) is not None:
            raise ContractError(
                Code.MISSING_DEPENDENCY,
                f"{name}: reading it needs {missing[0]}, which is not installed: pip install 'picochat[docs]'",
                param=name,
            )
        return self._kind(path, name, options)

    def found(self, path: Path, name: str, options: ReadOptions) -> SourceFile:
        """A file of a folder: it is left out where its reader is not installed."""
        missing = _missing_library(name)
        return self.left_out(name, missing[1]) if missing else self._kind(path, name, options)

    def _kind(self, path: Path, name: str, options: ReadOptions) -> SourceFile:
        kind, compression = split_suffix(name)
        reader = READERS.get(kind, _plain_texts)
        return self.readable(name, kind + compression, lambda: reader(path, name, options.text_field))

    def _file(
        self,
        name: str,
        extension: str,
        documents: Callable[[], Iterator[Document]] | None,
        reason: str | None,
    ) -> SourceFile:
        return SourceFile(
            path=name,
            source=self.index,
            label=self.source.label,
            license=self.source.license,
            extension=extension,
            documents=documents,
            reason=reason,
        )


def _named_files(source: FileSource, index: int) -> Iterator[SourceFile]:
    path, origin = Path(source.path), _Origin(source, index)
    if not path.exists() and source.optional:
        yield origin.left_out(path.name, MISSING)
        return
    _require(path, source.path)
    if not path.is_dir():
        excluded = is_excluded(path.name, source.include, source.exclude)
        yield origin.left_out(path.name, EXCLUDED) if excluded else origin.named(path, path.name, source)
        return
    root = shown_name(path.resolve().name)
    for file in walk(path, source.include, source.exclude):
        name = f"{root}/{file.name}"
        yield origin.left_out(name, file.reason) if file.reason else origin.found(file.path, name, source)


def _upload(source: ArtifactSource, index: int, path: Path) -> SourceFile:
    _require(path, source.name)
    return _Origin(source, index).named(path, source.name, source)


def _require(path: Path, name: str) -> None:
    if not path.exists():
        raise ContractError(
            Code.CORPUS_MISSING,
            f"no dataset source at {name}: expected a file or folder; check dataset.sources",
            param="dataset.sources",
        )


def _missing_library(name: str) -> tuple[str, str] | None:
    """Module that reading `name` needs and that is not installed, with the reason that is listed for it."""
    needed = LIBRARIES.get(split_suffix(name)[0])
    return needed if needed and find_spec(needed[0]) is None else None


def _plain_texts(path: Path, name: str, text_field: str | None) -> Texts:
    yield name, read_utf8(path, name)


def _pydoc_texts() -> Texts:
    for topic, text in sorted(topics.topics.items()):
        yield f"pydoc/{topic}", text
