"""Speed, memory, recall and precision of dedup, beside plain Python and datasketch on the same corpus in the same run.

    python bench/dedup.py [--megabytes 100] [--baseline-megabytes 100]

The corpus is generated: documents of about 4 kB with Zipf-distributed words, one in five outside ASCII. A tenth are edited
copies (one word in 100 replaced, cut by up to 8 %, capitals and other punctuation, a footer), a twentieth exact copies with
other white space, a tenth share half of their text with others and must survive. Every row runs in fresh processes and reads
the same Parquet file. The time of a `near` row covers all from the first read to the list of removed documents, the start of
worker processes included; that of an `exact` row leaves out the reader. `MB/CPU-s` is per second of processor time: on a
machine with other work to do it says more. `recall` is the share of planted copies removed, `precision` the share of removed
that was planted. Memory is the sum of the peaks of all processes of the row. Compares no other machine and no other corpus.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from picochat_trainer.data.dedup.exact import ExactIndex, fingerprint
from picochat_trainer.data.dedup.near import NearIndex, Signatures, sign
from picochat_trainer.data.workers import Workers

Result = TypeVar("Result")

THRESHOLD = 0.8
BATCH_CHARACTERS = 2 << 20
KINDS = ("new", "edited", "truncated", "recased", "footer", "exact", "boilerplate")
SHARES = (0.75, 0.025, 0.025, 0.025, 0.025, 0.05, 0.1)
NEAR_KINDS = frozenset(KINDS[1:6])


@dataclass(frozen=True)
class Measured:
    num_documents: int
    num_bytes: int
    seconds: float
    cpu_seconds: float
    """Of all processes of the row; on a busy machine it says more than the time that passed."""
    peak_bytes: int
    removed: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument(
        "--baseline-megabytes", type=int, help="of the same corpus, for datasketch; default: all"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    baseline = min(args.baseline_megabytes or args.megabytes, args.megabytes)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.parquet"
        _apart(_write_corpus, corpus, args.megabytes, args.seed)
        kinds = json.loads(corpus.with_suffix(".json").read_text())
        print(f"{len(kinds):,} documents, {args.megabytes} MB, seed {args.seed}, threshold {THRESHOLD}")
        print(
            f"{'':<34}{'MB':>6}{'processes':>11}{'MB/s':>8}{'MB/CPU-s':>10}{'ratio':>7}{'peak MB':>9}{'recall':>8}{'precision':>11}"
        )
        plain = _apart(_plain_set, corpus)
        _row("exact: set of sha256(split, join)", plain, plain, 1, kinds, {"exact"})
        _row("exact: picochat", _apart(_exact, corpus), plain, 1, kinds, {"exact"})
        lsh = _apart(_datasketch, corpus, args.processes, baseline)
        _row("near: datasketch MinHash + LSH", lsh, lsh, args.processes, kinds, NEAR_KINDS)
        near = _apart(_near, corpus, args.processes)
        _row("near: picochat", near, lsh, args.processes, kinds, NEAR_KINDS)
        for kind in sorted(NEAR_KINDS):
            print(
                f"  recall of {kind}: datasketch {_recall(lsh, kinds, {kind}):.4f}, picochat {_recall(near, kinds, {kind}):.4f}"
            )


def _row(
    name: str,
    measured: Measured,
    baseline: Measured,
    processes: int,
    kinds: Sequence[str],
    planted: frozenset[str] | set[str],
) -> None:
    speed, other = (one.num_bytes / one.seconds / 1e6 for one in (measured, baseline))
    right = sum(kinds[number] in planted for number in measured.removed)
    print(
        f"{name:<34}{measured.num_bytes / 1e6:>6.0f}{processes:>11}{speed:>8.1f}{measured.num_bytes / measured.cpu_seconds / 1e6:>10.1f}{speed / other:>7.1f}"
        f"{measured.peak_bytes / 1e6:>9.0f}{_recall(measured, kinds, planted):>8.4f}"
        f"{right / max(1, len(measured.removed)):>11.4f}"
    )


def _recall(measured: Measured, kinds: Sequence[str], planted: frozenset[str] | set[str]) -> float:
    total = sum(kind in planted for kind in kinds[: measured.num_documents])
    return sum(kinds[number] in planted for number in measured.removed) / max(1, total)


def _plain_set(corpus: Path) -> Measured:
    """What one writes without this package: the same equality, a set of digests."""
    seen = set[bytes]()

    def is_seen(text: str) -> bool:
        digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
        known = digest in seen
        seen.add(digest)
        return known

    return _timed(is_seen, corpus)


def _exact(corpus: Path) -> Measured:
    index = ExactIndex()
    return _timed(lambda text: index.add(fingerprint(text)) is not None, corpus)


def _timed(is_duplicate: Callable[[str], bool], corpus: Path) -> Measured:
    """Time of the comparisons alone: they are quicker than any reader."""
    clock, seconds, cpu_seconds, removed = _Clock(), 0.0, 0.0, []
    for batch in _batches(_texts(corpus, clock)):
        first = clock.num_documents - len(batch)
        start, cpu_start = time.perf_counter(), time.process_time()
        removed += [first + at for at, text in enumerate(batch) if is_duplicate(text)]
        seconds += time.perf_counter() - start
        cpu_seconds += time.process_time() - cpu_start
    return replace(clock.stop(removed), seconds=seconds, cpu_seconds=cpu_seconds)


def _near(corpus: Path, processes: int) -> Measured:
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder, NearIndex(THRESHOLD, Path(folder)) as index:
        for signatures, peak in _mapped(_signed, corpus, clock, processes):
            index.add(signatures)
            clock.worker_peak = max(clock.worker_peak, peak)
        return clock.stop(list(index.removed()), processes)


def _datasketch(corpus: Path, processes: int, megabytes: int) -> Measured:
    """Its own classes as its documentation uses them: a document that finds an earlier one is removed."""
    from datasketch import MinHash, MinHashLSH

    permutations = MinHash(num_perm=128).permutations
    clock, lsh, removed, number = _Clock(), MinHashLSH(threshold=THRESHOLD, num_perm=128), [], 0
    for values, peak in _mapped(_datasketch_values, corpus, clock, processes, megabytes):
        clock.worker_peak = max(clock.worker_peak, peak)
        for row in values:
            minhash = MinHash(hashvalues=row, permutations=permutations, scheme="affine32")
            if lsh.query(minhash):
                removed.append(number)
            else:
                lsh.insert(number, minhash)
            number += 1
    return clock.stop(removed, processes)


def _signed(texts: Sequence[str]) -> tuple[Signatures, int]:
    return sign(texts, threshold=THRESHOLD), _peak_bytes()


def _datasketch_values(texts: Sequence[str]) -> tuple[list[NDArray[np.uint64]], int]:
    from datasketch import MinHash

    sets = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        sets.append({" ".join(words[at : at + 5]).encode() for at in range(max(1, len(words) - 4))})
    return [minhash.hashvalues for minhash in MinHash.bulk(sets, num_perm=128)], _peak_bytes()


class _Clock:
    """Counts what was read from the moment at which the row began."""

    def __init__(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), _cpu_seconds()
        self.num_documents, self.num_bytes, self.worker_peak = 0, 0, 0

    def stop(self, removed: list[int], processes: int = 0) -> Measured:
        return Measured(
            num_documents=self.num_documents,
            num_bytes=self.num_bytes,
            seconds=time.perf_counter() - self._start,
            cpu_seconds=_cpu_seconds() - self._cpu_start,
            peak_bytes=_peak_bytes() + processes * self.worker_peak,
            removed=removed,
        )


def _mapped(
    function: Callable[[Sequence[str]], Result],
    corpus: Path,
    clock: _Clock,
    processes: int,
    megabytes: int | None = None,
) -> Iterator[Result]:
    with Workers(processes, pool_after_bytes=0) as workers:
        batches = _batches(_texts(corpus, clock, megabytes))
        for _, result in workers.map(function, batches, task=lambda batch: batch, size_bytes=len):
            yield result


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _texts(corpus: Path, clock: _Clock, megabytes: int | None = None) -> Iterator[str]:
    with pq.ParquetFile(corpus) as file:
        for batch in file.iter_batches(batch_size=1_024, columns=["text"]):
            column = batch.column(0)
            for text, num_bytes in zip(column.to_pylist(), pc.binary_length(column).to_pylist(), strict=True):
                clock.num_documents += 1
                clock.num_bytes += num_bytes
                yield text
            if megabytes is not None and clock.num_bytes >= megabytes * 1_000_000:
                return


def _cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    return sum(os.times()[:4])


def _peak_bytes() -> int:
    """Of this process alone; getrusage would begin at the peak of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return 1_024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


def _apart(function: Callable[..., Result], *args: object) -> Result:
    """Run in a process of its own, so that its memory is its own."""
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_send, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        result: Result = receiver.recv()
    finally:
        process.join()
    return result


def _send(sender: Connection, function: Callable[..., object], args: tuple[object, ...]) -> None:
    sender.send(function(*args))


def _write_corpus(corpus: Path, megabytes: int, seed: int) -> None:
    """Documents in order, and beside them the kind of each."""
    rng, generator = random.Random(seed), np.random.Generator(np.random.PCG64(seed))
    vocabulary = _vocabulary(rng)
    boilerplate = [_words(generator, vocabulary, 400) for _ in range(5)]
    originals: list[str] = []
    kinds, written = [], 0
    with pq.ParquetWriter(corpus, pa.schema([("text", pa.string())]), compression="zstd") as writer:
        rows: list[str] = []
        while written < megabytes * 1_000_000:
            kind = rng.choices(KINDS, SHARES)[0] if originals else "new"
            if kind in NEAR_KINDS:  # each original is copied once
                found = originals.pop(rng.randrange(len(originals))).split(" ")
            else:
                found = _new_words(rng, generator, vocabulary)
            if kind == "boilerplate":
                found = [*rng.choice(boilerplate), *found[:400]]
            text = _edited(kind, found, rng, vocabulary)
            if kind == "new":
                originals.append(text)
            kinds.append(kind)
            rows.append(text)
            written += len(text.encode())
            if len(rows) == 2_000 or written >= megabytes * 1_000_000:
                writer.write_table(pa.table({"text": rows}))
                rows = []
            if len(originals) > 20_000:
                originals = originals[10_000:]
    corpus.with_suffix(".json").write_text(json.dumps(kinds))


def _vocabulary(rng: random.Random) -> list[str]:
    letters = "eeetaoinshrdlucmfwypvbgk"
    return ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(50_000)]


def _new_words(rng: random.Random, generator: np.random.Generator, vocabulary: Sequence[str]) -> list[str]:
    found = _words(generator, vocabulary, max(60, int(rng.lognormvariate(6.2, 0.6))))
    for at in range(0, len(found), 17):
        found[at] = found[at].capitalize() + ("." if at % 2 else ",")
    for at in range(0, len(found), 80):
        found[at] += "\n\n" + found[at]
    if rng.random() < 0.2:
        for at in range(5, len(found), 40):
            found[at] = "\u201ccaf\u00e9\u201d \u2013"
    return found


def _words(generator: np.random.Generator, vocabulary: Sequence[str], count: int) -> list[str]:
    # the density of ranks falls as 1 / rank
    ranks = np.exp(generator.random(count) * np.log(len(vocabulary))).astype(np.int64) - 1
    return [vocabulary[rank] for rank in ranks.tolist()]


def _edited(kind: str, found: list[str], rng: random.Random, vocabulary: Sequence[str]) -> str:
    if kind == "edited":
        for at in rng.sample(range(len(found)), max(1, len(found) // 100)):
            found[at] = rng.choice(vocabulary)
    elif kind == "truncated":
        found = found[: int(len(found) * rng.uniform(0.92, 0.99))]
    elif kind == "footer":
        found = [*found, *rng.choices(vocabulary, k=len(found) // 15)]
    text = " ".join(found)
    if kind == "recased":
        return text.upper().replace(",", " -").replace(".", "!")
    return "  " + text.replace("\n\n", " \n\n\n") if kind == "exact" else text


if __name__ == "__main__":
    main()
