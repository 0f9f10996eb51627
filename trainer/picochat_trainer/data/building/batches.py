"""Documents of many files, gathered into batches: what one task of the first pass is.

Where batches are cut depends on the documents only, never on how far the reader is ahead of the workers: a source
with a limit has batches of its own, since nobody knows how much of it is read in vain.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from picochat_contract.errors import ContractError

from picochat_trainer.data.building.raw import RawDocuments
from picochat_trainer.data.documents import Document
from picochat_trainer.data.sources import SourceFile

BATCH_CHARACTERS: Final = 2 << 20
BATCH_DOCUMENTS: Final = 8_192


@dataclass(kw_only=True)
class Batch:
    number: int
    documents: RawDocuments = field(default_factory=RawDocuments)
    opened: list[tuple[int, SourceFile]] = field(default_factory=list)
    """Files whose first document is in this batch or a later one, with their numbers."""
    num_characters: int = 0
    failure: tuple[int, ContractError] | None = None
    """What stopped the reading after these documents, and of which source."""

    @property
    def is_full(self) -> bool:
        return self.num_characters >= BATCH_CHARACTERS or len(self.documents.paths) >= BATCH_DOCUMENTS

    def add(self, document: Document, file: int, reason: str | None = None) -> None:
        documents = self.documents
        documents.paths.append(document.path)
        documents.texts.append(document.text)
        documents.sources.append(document.source)
        documents.labels.append(document.label)
        documents.licenses.append(document.license)
        documents.files.append(file)
        documents.reasons.append(reason)
        self.num_characters += len(document.text)


def read_batches(
    files: Iterable[SourceFile], *, limited: frozenset[int], is_full: Callable[[int], bool]
) -> Iterator[Batch]:
    """Batches of the documents of `files`. `limited` are the sources with a limit; `is_full` says of one of them that
    its limit is reached: then one document more is read, to tell whether anything was left, and no file after it."""
    batch, source, closed = Batch(number=0), -1, set[int]()
    for number, file in enumerate(files):
        if batch.documents.paths and file.source != source and not limited.isdisjoint((file.source, source)):
            yield batch
            batch = Batch(number=batch.number + 1)
        source = file.source
        batch.opened.append((number, file))
        if file.documents is None:
            batch.add(_stand_in(file), number, file.reason)
        elif source not in closed:
            try:
                for document in file.documents():
                    is_rest = source in limited and is_full(source)
                    batch.add(document, number)
                    if is_rest:
                        closed.add(source)
                        break
                    if batch.is_full:
                        yield batch
                        batch = Batch(number=batch.number + 1)
            except ContractError as error:
                # where the limit is reached before this place, the error is nobody's business
                batch.failure = (source, error)
                yield batch
                batch = Batch(number=batch.number + 1)
                closed.add(source)
    if batch.documents.paths or batch.opened:
        yield batch


def _stand_in(file: SourceFile) -> Document:
    return Document(path=file.path, text="", source=file.source, label=file.label, license=file.license)
