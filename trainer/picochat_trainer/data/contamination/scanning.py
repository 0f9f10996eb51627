"""One pass over documents that finds every item of an index in them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Final

from picochat_trainer.data.contamination.index import ItemIndex
from picochat_trainer.data.contamination.matches import Match
from picochat_trainer.data.contamination.matching import match_block
from picochat_trainer.data.contamination.measures import measures
from picochat_trainer.data.contamination.results import Finding, ItemResult, Measured, ScanResult
from picochat_trainer.data.contamination.segments import Segment, cut_blocks
from picochat_trainer.data.contamination.tally import PatternTally, Place
from picochat_trainer.data.workers import Workers

BLOCKS_PER_TASK: Final = 8
_NOTHING: Final = Measured()
Task = list[list[Segment]]


def scan(index: ItemIndex, documents: Iterable[tuple[str, str]], *, workers: int = 1) -> ScanResult:
    """Look for the items in documents, each an (id, text). Reads them once, in order, in bounded memory.

    The result is the same for every number of worker processes, and however long documents are cut.
    """
    stream = _Stream(documents)
    # Whatever is looked for, with the words that an edit may add, is shorter than what two pieces share.
    blocks = cut_blocks(stream, 2 * index.max_tokens + 64)
    tallies: dict[int, PatternTally] = {}
    rules = measures(index.near_threshold)
    for match in _matches(index, blocks, workers):
        if match.pattern not in tallies:
            tallies[match.pattern] = PatternTally(index.pattern(match.pattern), rules)
        tallies[match.pattern].add(match)
    return _result(index, stream, tallies)


class _Stream:
    """Counts the documents that pass by."""

    def __init__(self, documents: Iterable[tuple[str, str]]) -> None:
        self._documents = documents
        self.num_documents = 0
        self.num_characters = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for document_id, text in self._documents:
            self.num_documents += 1
            self.num_characters += len(text)
            yield document_id, text


class _Matcher:
    """Matches blocks against an index. Sent to a worker process, it becomes the matcher of that process."""

    def __init__(self, index: ItemIndex) -> None:
        self._index = index

    def __call__(self, task: Task) -> list[Match]:
        return [match for block in task for match in match_block(self._index, block)]

    def __reduce__(self) -> tuple[Callable[[], "_Matcher"], tuple[()]]:
        return _matcher_of_process, ()


_of_process: _Matcher | None = None


def _matcher_of_process() -> _Matcher:
    assert _of_process is not None
    return _of_process


def _set_up_process(index: ItemIndex) -> None:
    global _of_process
    _of_process = _Matcher(index)


def _matches(index: ItemIndex, blocks: Iterator[list[Segment]], workers: int) -> Iterator[Match]:
    tasks = iter(lambda: list(islice(blocks, BLOCKS_PER_TASK)), [])
    with Workers(workers, initializer=partial(_set_up_process, index)) as pool:
        for _, matches in pool.map(_Matcher(index), tasks, task=lambda task: task, size_bytes=_size):
            yield from matches


def _size(task: Task) -> int:
    return sum(len(segment.text) for block in task for segment in block)


def _result(index: ItemIndex, stream: _Stream, tallies: dict[int, PatternTally]) -> ScanResult:
    measured = {number: tally.finish() for number, tally in tallies.items()}
    has_prompt, has_both = index.layout.has_prompt.tolist(), index.layout.has_both.tolist()
    items: dict[str, ItemResult] = {}
    findings: list[Finding] = []
    num_found = 0
    for item, number in zip(index.items, index.pattern_of_item, strict=True):
        tally = tallies.get(number)
        parts = iter(measured.get(number, (_NOTHING, _NOTHING)))
        items[item.key] = ItemResult(
            key=item.key,
            searchable=has_prompt[number] or has_both[number],
            prompt=next(parts) if has_prompt[number] else None,
            prompt_answer=next(parts) if has_both[number] else None,
            num_documents=tally.num_documents if tally else 0,
        )
        if tally:
            findings += [_finding(item.key, index, number, place) for place in tally.places]
            num_found += tally.num_documents
    return ScanResult(
        items=items,
        findings=tuple(findings),
        findings_omitted=num_found - len(findings),
        measures=measures(index.near_threshold),
        num_documents=stream.num_documents,
        num_characters=stream.num_characters,
        num_not_searchable=sum(not item.searchable for item in items.values()),
    )


def _finding(key: str, index: ItemIndex, number: int, place: Place) -> Finding:
    pattern = index.pattern(number)
    return Finding(
        item=key,
        variant=pattern.parts[place.part].variant,
        place=place.document_id,
        document=place.document,
        kind=place.kind,
        measure=place.measure,
        value=place.value,
        item_span=(pattern.spans[place.first][0], pattern.spans[place.last][1]),
        text_span=(place.span.start, place.span.end),
        text=place.span.text,
    )
