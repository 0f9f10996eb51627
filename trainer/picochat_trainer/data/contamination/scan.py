"""One pass over documents that finds every item of an index in them."""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Final

from picochat_trainer.data.contamination.index import ItemIndex
from picochat_trainer.data.contamination.matches import Match
from picochat_trainer.data.contamination.matching import match_block
from picochat_trainer.data.contamination.measures import Variant, measures
from picochat_trainer.data.contamination.results import Finding, ItemResult, Measured, ScanResult
from picochat_trainer.data.contamination.segments import Segment, cut_blocks
from picochat_trainer.data.contamination.tally import PatternTally, Place

BLOCKS_PER_TASK: Final = 8
TASKS_PER_WORKER: Final = 3
"""Tasks that wait for each worker; the text in memory is bounded by them."""
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


def _matches(index: ItemIndex, blocks: Iterator[list[Segment]], workers: int) -> Iterator[Match]:
    if workers <= 1 or not index.max_tokens:
        for block in blocks:
            if index.max_tokens:
                yield from match_block(index, block)
        return
    # Not forked: the caller may hold threads, of torch for example.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_set_index, initargs=(index,)) as pool:
        waiting: deque[Future[list[Match]]] = deque()
        for task in iter(lambda: list(islice(blocks, BLOCKS_PER_TASK)), []):
            waiting.append(pool.submit(_match_task, task))
            if len(waiting) > TASKS_PER_WORKER * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


_index: ItemIndex | None = None


def _set_index(index: ItemIndex) -> None:
    """In a worker process: what all its tasks look for."""
    global _index
    _index = index


def _match_task(task: Task) -> list[Match]:
    assert _index is not None
    return [match for block in task for match in match_block(_index, block)]


def _result(index: ItemIndex, stream: _Stream, tallies: dict[int, PatternTally]) -> ScanResult:
    measured = {number: tally.finish() for number, tally in tallies.items()}
    items: dict[str, ItemResult] = {}
    findings: list[Finding] = []
    num_found = 0
    for item, number in zip(index.items, index.pattern_of_item, strict=True):
        tally = tallies.get(number)
        variants = [variant for variant, _ in index.variants(number)]
        of_variant = dict(zip(variants, measured.get(number, [Measured()] * len(variants)), strict=True))
        items[item.key] = ItemResult(
            key=item.key,
            searchable=bool(variants),
            prompt=of_variant.get(Variant.PROMPT),
            prompt_answer=of_variant.get(Variant.PROMPT_ANSWER),
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
