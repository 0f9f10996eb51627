"""Speed, growth, recall and false alarms of the contamination scan, beside a Python set of 13-word hashes in the same run.

    python bench/contamination.py [--megabytes 8] [--items 10000] [--workers 2]
    python bench/contamination.py --recall [--clean-megabytes 20] [--recall-items 700]

All text is generated (see `contamination_texts.py`): English prose, technical English, one document in ten in another
language. The speed rows read `--megabytes` of it 1, 4, 16 and 32 times, with one document in 100 holding an item; each runs in a
fresh process, from memory, and its time covers the start of its worker processes but not the making of the index, which has a
column of its own. `ratio` is the speed over the baseline's, `per CPU` the MB for each second of processor time of all
processes: the figure to read where others use the machine too. Memory is the peak of the process plus, for each worker, the largest peak among them. The baseline looks up
hashes of 13 words in a row after `lower` and a regular expression, and neither verifies nor tells where. The recall tables
plant every item once in a clean text; found means that a finding names the item and the text it was planted in. Compares no
other machine and no natural corpus.
"""

import argparse
import json
import multiprocessing
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from contamination_recall import PLACES, Recall, measure_recall
from contamination_texts import CLASSES, clean_documents, make_items
from picochat_trainer.data.contamination import Item, ItemIndex, scan

PLANTED_EVERY = 100


@dataclass(frozen=True)
class Row:
    """One line of the speed table."""

    name: str
    num_items: int
    times: int
    """How often the text is read."""
    workers: int = 1
    baseline: bool = False


@dataclass(frozen=True)
class Measured:
    num_bytes: int
    build_seconds: float
    scan_seconds: float
    cpu_seconds: float
    """Of the scan, over all its processes."""
    peak_bytes: int
    num_found: int

    @property
    def speed(self) -> float:
        """MB/s"""
        return self.num_bytes / self.scan_seconds / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=8)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recall", action="store_true", help="the tables of recall and false alarms instead")
    parser.add_argument("--clean-megabytes", type=int, default=20)
    parser.add_argument("--recall-items", type=int, default=700)
    args = parser.parse_args()
    if args.recall:
        _print_recall(
            measure_recall(
                num_items=args.recall_items,
                clean_bytes=args.clean_megabytes * 1_000_000,
                workers=args.workers,
            )
        )
        print(f"\npeak memory {_own_peak() / 1e6:,.0f} MB")
    else:
        _print_speed(args.megabytes, args.items, args.workers)


def _print_speed(megabytes: int, num_items: int, workers: int) -> None:
    rows = [
        Row("set of 13-word hashes", num_items, 4, baseline=True),
        Row("scan, 1 process", num_items, 4),
        Row(f"scan, {workers} processes", num_items, 32, workers=workers),
        Row("1x corpus", num_items, 1),
        Row("4x corpus", num_items, 4),
        Row("16x corpus", num_items, 16),
        Row("1x items", num_items, 4),
        Row("10x items", 10 * num_items, 4),
    ]
    print(
        f"{'':24}{'items':>9}{'MB':>8}{'build s':>9}{'scan s':>9}{'MB/s':>8}{'ratio':>7}{'per CPU':>9}{'peak MB':>9}{'items found':>13}"
    )
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "documents.json"
        rng = random.Random(2)
        corpus.write_text(json.dumps(list(clean_documents(rng, megabytes * 1_000_000))), encoding="utf-8")
        baseline = None
        for row in rows:
            measured = _in_fresh_process(row, corpus)
            baseline = baseline or measured
            print(
                f"{row.name:24}{row.num_items:>9,}{measured.num_bytes / 1e6:>8.1f}{measured.build_seconds:>9.2f}"
                f"{measured.scan_seconds:>9.2f}{measured.speed:>8.1f}{measured.speed / baseline.speed:>7.1f}"
                f"{measured.num_bytes / measured.cpu_seconds / 1e6:>9.1f}{measured.peak_bytes / 1e6:>9,.0f}{measured.num_found:>13,}",
                flush=True,
            )


def _in_fresh_process(row: Row, corpus: Path) -> Measured:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(row, corpus, theirs))
    process.start()
    theirs.close()
    try:
        measured: Measured = ours.recv()
    except EOFError:
        raise SystemExit(f"the row {row.name} ended without a result") from None
    process.join()
    return measured


def _measure(row: Row, corpus: Path, pipe: Connection) -> None:
    items = make_items(random.Random(3), row.num_items).items
    texts = _plant(json.loads(corpus.read_text(encoding="utf-8")), items)
    num_bytes = row.times * sum(len(text.encode()) for text in texts)
    look = _look_up_hashes if row.baseline else _scan
    build_seconds, scan_seconds, cpu_seconds, num_found = look(items, texts, row)
    peak = _own_peak() + row.workers * (0 if row.workers == 1 else _children_peak())
    pipe.send(Measured(num_bytes, build_seconds, scan_seconds, cpu_seconds, peak, num_found))


def _plant(texts: list[str], items: list[Item]) -> list[str]:
    rng = random.Random(4)
    return [
        f"{text}\n{rng.choice(items).prompt}" if number % PLANTED_EVERY == 0 else text
        for number, text in enumerate(texts)
    ]


def _documents(texts: list[str], times: int) -> Iterator[tuple[str, str]]:
    for turn in range(times):
        for number, text in enumerate(texts):
            yield f"{turn}:{number}", text


def _scan(items: list[Item], texts: list[str], row: Row) -> tuple[float, float, float, int]:
    started = time.perf_counter()
    index = ItemIndex(items)
    built, used = time.perf_counter(), _cpu_seconds()
    result = scan(index, _documents(texts, row.times), workers=row.workers)
    done = time.perf_counter()
    return (
        built - started,
        done - built,
        _cpu_seconds() - used,
        sum(item.num_documents > 0 for item in result.items.values()),
    )


def _look_up_hashes(items: list[Item], texts: list[str], row: Row) -> tuple[float, float, float, int]:
    split: Callable[[str], list[str]] = re.compile(r"\w+").findall
    started = time.perf_counter()
    known: dict[int, int] = {}
    for number, item in enumerate(items):
        for gram in _hashes(split(item.prompt.lower())):
            known.setdefault(gram, number)
    keys = known.keys()
    built, used = time.perf_counter(), _cpu_seconds()
    found: set[int] = set()
    for _, text in _documents(texts, row.times):
        found |= keys & set(_hashes(split(text.lower())))
    done = time.perf_counter()
    return built - started, done - built, _cpu_seconds() - used, len({known[gram] for gram in found})


def _hashes(words: list[str]) -> Iterator[int]:
    return map(hash, zip(*(words[start:] for start in range(13)), strict=False))


def _cpu_seconds() -> float:
    """Of this process and of all its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _own_peak() -> int:
    return _peak(resource.RUSAGE_SELF)


def _children_peak() -> int:
    return _peak(resource.RUSAGE_CHILDREN)


def _peak(who: int) -> int:
    """Bytes; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _print_recall(recall: Recall) -> None:
    print(f"{recall.num_items} items, {recall.num_not_searchable} of them too short to look for\n")
    print(f"{'planted':28}" + "".join(f"{place:>18}" for place in PLACES))
    for name in CLASSES:
        cells = [recall.cells[name, place] for place in PLACES]
        print(f"{name:28}" + "".join(f"{f'{cell.recall:.1%} of {cell.num_planted}':>18}" for cell in cells))
    counts = [len({finding.item for finding in recall.alarms[place]}) for place in PLACES]
    print(
        f"{'nothing (false alarms)':28}" + "".join(f"{count / recall.num_items:>18.2%}" for count in counts)
    )
    print(f"{'clean text, MB':28}" + "".join(f"{recall.clean_bytes[place] / 1e6:>18.1f}" for place in PLACES))
    print("\nshare that each measure marks in the corpus, on the prompt alone")
    measures = list(recall.cells["verbatim", "corpus"].by_measure)
    print(f"{'':28}" + "".join(f"{measure:>17}" for measure in measures))
    for name in CLASSES:
        cell = recall.cells[name, "corpus"]
        shares = [cell.by_measure[measure] / cell.num_planted for measure in measures]
        print(f"{name:28}" + "".join(f"{share:>17.1%}" for share in shares))


if __name__ == "__main__":
    main()
