"""Recall and false alarms of the contamination engine on planted items; used by `contamination.py` and by a test."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from contamination_texts import CLASSES, Benchmark, clean_documents, clean_rows, make_items
from picochat_trainer.data.contamination import Finding, Item, ItemIndex, ScanResult, scan
from picochat_trainer.data.normalize import words

Documents = list[tuple[str, str]]
PLACES = ("corpus", "sft", "preferences")
MIN_EDITED_WORDS = 8
"""Shorter items have no word in eight to replace."""


@dataclass
class Cell:
    """Items of one class planted in one place."""

    num_planted: int = 0
    found: int = 0
    missed: list[str] = field(default_factory=list)
    by_measure: dict[str, int] = field(default_factory=dict)

    @property
    def recall(self) -> float:
        return self.found / self.num_planted


@dataclass(frozen=True)
class Recall:
    num_items: int
    num_not_searchable: int
    cells: dict[tuple[str, str], Cell]
    """By class and place."""
    alarms: dict[str, list[Finding]]
    """What was found where nothing was planted, by place."""
    clean_bytes: dict[str, int]


def measure_recall(*, num_items: int, clean_bytes: int, seed: int = 1, workers: int = 1) -> Recall:
    rng = random.Random(seed)
    benchmark = make_items(rng, num_items)
    # Two prompts that every text holds: they must be left out and counted, not alarm.
    items = [*benchmark.items, Item("tiny:1", "Who is it?", "no one"), Item("tiny:2", "Why?")]
    index = ItemIndex(items)
    clean = {
        place: list(_clean(rng, place, clean_bytes if place == "corpus" else clean_bytes // 10))
        for place in PLACES
    }
    alarms = {}
    not_searchable: set[str] = set()
    for place in PLACES:
        result = scan(index, clean[place], workers=workers)
        alarms[place] = list(result.findings)
        not_searchable |= {key for key, item in result.items.items() if not item.searchable}
    cells = {
        (name, place): _plant_and_find(rng, index, benchmark, name, place, clean[place], not_searchable)
        for name in CLASSES
        for place in PLACES
    }
    sizes = {place: sum(len(text.encode()) for _, text in clean[place]) for place in PLACES}
    return Recall(len(items), len(not_searchable), cells, alarms, sizes)


def _clean(rng: random.Random, place: str, num_bytes: int) -> Iterator[tuple[str, str]]:
    if place == "corpus":
        for number, text in enumerate(clean_documents(rng, num_bytes)):
            yield f"corpus:{number}", text
        return
    for number, (prompt, answer) in enumerate(clean_rows(rng, num_bytes // (150 if place == "sft" else 250))):
        yield f"{place}:{number}", _row(rng, place, prompt, answer)


def _row(rng: random.Random, place: str, prompt: str, answer: str) -> str:
    if place == "sft":
        return f"{prompt}\n{answer}"
    return f"{prompt}\n{answer}\nI do not know {rng.randint(1, 99)} of these."


def _plant_and_find(
    rng: random.Random,
    index: ItemIndex,
    benchmark: Benchmark,
    name: str,
    place: str,
    clean: Documents,
    not_searchable: set[str],
) -> Cell:
    """Plant every item once, each in a clean text of its own, and look for it there."""
    cell = Cell()
    documents: Documents = []
    for item in benchmark.items:
        if item.key in not_searchable or (name == "edited" and len(words(item.prompt)) < MIN_EDITED_WORDS):
            continue
        text = CLASSES[name](rng, item.prompt)
        around = rng.choice(clean)[1]
        documents.append((item.key, _host(rng, name, place, text, item.answer or "", around)))
    result = scan(index, documents)
    placed = {(finding.item, finding.place) for finding in result.findings}
    for key, _ in documents:
        cell.num_planted += 1
        if (key, key) in placed:
            cell.found += 1
        else:
            cell.missed.append(key)
    cell.by_measure = {
        measure: _marked(result, measure, [key for key, _ in documents]) for measure in result.measures
    }
    return cell


def _host(rng: random.Random, name: str, place: str, text: str, answer: str, around: str) -> str:
    if place == "corpus":
        lines = around.split("\n")
        if name == "embedded":
            lines[len(lines) // 2] += f" {text}"
        else:
            lines.insert(rng.randint(0, len(lines)), text)
        return "\n".join(lines)
    if name == "embedded":
        text = f"Hello there, I need help. {text} Thank you in advance."
    row = f"{text}\n{answer}"
    # In preferences the prompt, the chosen and the rejected answer may hold it.
    return (
        row if place == "sft" else rng.choice((f"{row}\n{around}", f"{around}\n{text}", f"{around}\n{row}"))
    )


def _marked(result: ScanResult, measure: str, keys: Sequence[str]) -> int:
    marked = set(result.hits(measure, "prompt"))
    return len(marked.intersection(keys))
