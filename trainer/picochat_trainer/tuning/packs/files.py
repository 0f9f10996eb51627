"""A dataset pack as the commands that fill it see it: its corpus, its licence, what else it names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from picochat_client.packs import ROW_KEYS, corpus_settings, read_dataset_file, rows_path
from picochat_contract.canonical import sha256_hex
from picochat_contract.data_configs import FileSource, Source
from picochat_contract.errors import Code, ContractError
from picochat_contract.packs import CorpusRecipe, DatasetPack
from pydantic import TypeAdapter

from picochat_trainer.data.corpus_store import CorpusDocument
from picochat_trainer.tuning.starters.texts import read_sources

SOURCES: Final = TypeAdapter(list[Source])


@dataclass(frozen=True, kw_only=True)
class PackFiles:
    """A pack that may still lack rows."""

    path: Path
    pack: DatasetPack
    """Without the rows that it names."""
    sources: tuple[Source, ...]

    def texts(self) -> Iterator[tuple[str, str]]:
        """(name, text) of the corpus as it lies in its sources, before cleaning."""
        return read_sources(self.sources)

    def rows_path(self, name: str) -> Path | None:
        return rows_path(self.path, name)

    def external_paths(self) -> dict[str, Path]:
        """Benchmarks by name."""
        folder = self.path.absolute().parent
        return {name: folder / value for name, value in self.pack.external.items()}


def open_pack(path: Path) -> PackFiles:
    """Read a dataset pack; raise ContractError where it is none, or its corpus is not there."""
    found = read_dataset_file(path, without=[key for key in ROW_KEYS if key != "external"])
    if isinstance(found, CorpusRecipe):
        raise ContractError(
            Code.INVALID_VALUE,
            f"{path} is a corpus recipe; expected a dataset pack (make one with `picochat data init-pack --corpus "
            f"{path}`)",
            param="--pack",
        )
    return PackFiles(path=path, pack=found, sources=tuple(SOURCES.validate_python(corpus_settings(path))))


class RawCorpus:
    """Texts that no corpus was built of yet, in the shape that honesty reads."""

    def __init__(self, texts: Callable[[], Iterator[tuple[str, str]]]) -> None:
        self._texts = texts
        self._read: int | None = None

    @property
    def num_documents(self) -> int | None:
        """None before all were read."""
        return self._read

    def documents(self) -> Iterator[CorpusDocument]:
        for index, (name, text) in zip(count(), self._texts(), strict=False):
            yield CorpusDocument(
                index=index,
                document_id=sha256_hex(text.encode())[:16],
                text=text,
                path=name,
                label=None,
                license=None,
                source=None,
                quality_score=None,
            )
            self._read = index + 1


def source_texts(path: Path) -> Callable[[], Iterator[tuple[str, str]]]:
    """(name, text) of the documents of a file or folder, each time from the beginning."""
    return lambda: read_sources([FileSource(type="file", path=str(path))])
