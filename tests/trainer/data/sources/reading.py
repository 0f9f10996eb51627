"""Reads sources as the builder does."""

from pathlib import Path
from typing import Any

from picochat_contract.data_configs import FileSource, Source
from picochat_trainer.data.documents import Document
from picochat_trainer.data.sources import SourceFile, open_sources


def files(*sources: Source, uploads: Path = Path("none")) -> list[SourceFile]:
    return list(open_sources(sources, artifact_path=lambda digest: uploads / digest))


def documents(*sources: Source, uploads: Path = Path("none")) -> list[Document]:
    return [
        document
        for file in files(*sources, uploads=uploads)
        if file.documents
        for document in file.documents()
    ]


def file_source(path: Path, **options: Any) -> FileSource:
    return FileSource(type="file", path=str(path), **options)
