"""The documents that a starter asks about, and the one side, SFT or eval, that each belongs to.

The side goes by the rank of the document's hash, so the SFT starter and the eval starter of one corpus never ask about
one document, whatever their size and seed. A corpus of very few documents is cut into sections first.
"""

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from picochat_contract import layout
from picochat_contract.canonical import sha256_hex
from picochat_contract.data_configs import FileSource, Source
from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.data.sources import open_sources
from picochat_trainer.tuning.skills.question import Side

MIN_DOCUMENTS: Final = 8  # fewer are cut into sections
SECTION_CHARACTERS: Final = 300
MAX_TEXTS: Final = 4_096  # those with the smallest hashes: memory stays flat on any corpus
MAX_CHARACTERS: Final = 20_000  # of one text: facts come from its beginning
TITLE_WORDS: Final = 6  # short of the windows by which texts are compared
_MARKS: Final = re.compile(r"^[\W_]+|[\W_]+$")
_PARAGRAPH: Final = re.compile(r"\n\s*\n")


@dataclass(frozen=True, kw_only=True)
class SourceText:
    """A document or a section of one."""

    id: str
    """First 12 hexadecimal digits of the sha256 of its normal form."""
    title: str
    text: str

    @property
    def normal(self) -> str:
        return f" {normal_form(self.text)} "


def read_corpus(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of the documents of a built corpus (a run folder, or its corpus.txt), or of any files."""
    folder = path.parent if path.name == layout.CORPUS else path
    if (folder / layout.CORPUS_MANIFEST).is_file():
        return ((document.path, document.text) for document in CorpusStore.at(folder).documents())
    return read_sources([FileSource(type="file", path=str(path))])


def read_sources(sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    """(name, text) of the documents of files."""
    for file in open_sources(sources, artifact_path=_no_uploads):
        if file.documents is not None:
            yield from ((document.path, document.text) for document in file.documents())


def texts_of_side(documents: Callable[[], Iterator[tuple[str, str]]], side: Side) -> list[SourceText]:
    """The texts of one side in a fixed order; raise `corpus_too_small` where there is none for each side.

    `documents` is called again where there are so few that sections of them are needed.
    """
    kept = _smallest(_text(name, text) for name, text in documents())
    if len(kept) < MIN_DOCUMENTS:
        kept = _smallest(section for name, text in documents() for section in _sections(name, text))
    if len(kept) < len(Side):
        raise ContractError(
            Code.CORPUS_TOO_SMALL,
            f"a starter needs two different documents or paragraphs of {SECTION_CHARACTERS} characters, one for the "
            f"SFT rows and one for the eval; got {len(kept)}. Give more text",
            param="--input",
        )
    return kept[list(Side).index(side) :: len(Side)]


def _smallest(found: Iterable[SourceText]) -> list[SourceText]:
    """Different texts with the smallest hashes, in their order."""
    heap: list[tuple[int, str]] = []
    texts: dict[str, SourceText] = {}
    for text in found:
        if not text.text.strip() or text.id in texts:
            continue
        heapq.heappush(heap, (-int(text.id, 16), text.id))
        texts[text.id] = text
        if len(heap) > MAX_TEXTS:
            del texts[heapq.heappop(heap)[1]]
    return [texts[id] for id in sorted(texts)]


def _text(name: str, text: str) -> SourceText:
    text = text[:MAX_CHARACTERS]
    return SourceText(id=_id(text), title=_heading(text) or _stem(name), text=text)


def _sections(name: str, text: str) -> Iterator[SourceText]:
    """Paragraphs joined to pieces of at least SECTION_CHARACTERS; one without a heading has a number in its title."""
    number, piece = 0, ""
    paragraphs = _PARAGRAPH.split(text)
    for position, paragraph in enumerate(paragraphs, start=1):
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        if len(piece) < SECTION_CHARACTERS and position < len(paragraphs):
            continue
        number += 1
        piece = piece.strip("\n")[:MAX_CHARACTERS]
        title = _heading(piece) or f"{_stem(name)}, part {number}"
        yield SourceText(id=_id(piece), title=title, text=piece)
        piece = ""


def _id(text: str) -> str:
    return sha256_hex(normal_form(text).encode())[:12]


def _heading(text: str) -> str | None:
    """The first line where it reads like one."""
    first = text.strip().split("\n", 1)[0].strip()
    heading = _MARKS.sub("", first)
    is_heading = 1 <= len(heading.split()) <= TITLE_WORDS and first[-1] not in ".,;:!?" and '"' not in heading
    return heading if is_heading else None


def _stem(name: str) -> str:
    """`guide` of `docs/guide.md`, `rows 17` of `rows.jsonl:17`."""
    file, _, record = name.replace("\\", "/").rsplit("/", 1)[-1].partition(":")
    return " ".join([file.split(".")[0] or file, *([record] if record else [])])


def _no_uploads(digest: str) -> Path:
    raise AssertionError(f"no source on the command line is an upload: {digest}")
