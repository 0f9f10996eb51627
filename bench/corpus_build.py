"""Speed and memory of a whole corpus build, and of its parts one by one.

    python bench/corpus_build.py --megabytes 100 --workers 1 2

Generates documents of random words (a tenth of them copies, a tenth of them copies with edits), builds the corpus in a
process of its own per number of workers, and prints MB/s and the largest sum of resident memory of that process and its
workers. The baseline is one pass of the same work in plain Python: json, NFC, a set of digests.
"""

import argparse
import json
import multiprocessing
import random
import resource
import subprocess
import tempfile
import threading
import time
import unicodedata
from hashlib import blake2b
from multiprocessing.connection import Connection
from pathlib import Path

from picochat_contract.data_configs import CleaningConfig, FileSource
from picochat_trainer.data.corpus import build_corpus
from picochat_trainer.data.sources import open_sources

DOCUMENT_WORDS = 700
VOCABULARY = 30_000
BASELINE_BYTES = 300_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pii", choices=["keep", "mask"], default="keep")
    parser.add_argument("--no-near", action="store_true", help="without near duplicates")
    parser.add_argument(
        "--documents", type=Path, help="JSONL of an earlier run to use again, or where to keep it"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.documents or Path(folder) / "documents.jsonl"
        if not source.exists():
            write_documents(source, arguments.megabytes * 1_000_000)
        size = source.stat().st_size
        baseline = measure_baseline(source)
        print(f"{'':24}{'MB/s':>8}{'seconds':>9}{'CPU s':>7}{'peak MiB':>10}{'documents':>11}  / baseline")
        print(f"{'baseline: plain Python':24}{baseline:8.1f}")
        cleaning = CleaningConfig(pii=arguments.pii, near_duplicates=not arguments.no_near)
        for workers in arguments.workers:
            seconds, cpu, peak, documents = measure_build(
                source, cleaning, workers, Path(folder) / f"out{workers}"
            )
            rate = size / 1e6 / seconds
            print(
                f"{f'build, workers={workers}':24}{rate:8.1f}{seconds:9.1f}{cpu:7.1f}{peak / 2**20:10.0f}{documents:11,}"
                f"{rate / baseline:10.2f}x"
            )


def write_documents(path: Path, size_bytes: int) -> None:
    """JSONL rows with `text`."""
    rng = random.Random(7)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(VOCABULARY)
    ]
    recent: list[str] = []
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size_bytes:
            kind = rng.random()
            if recent and kind < 0.1:
                text = rng.choice(recent)
            elif recent and kind < 0.2:
                parts = rng.choice(recent).split(" ")
                parts[rng.randrange(len(parts))] = "edited"
                text = " ".join(parts)
            else:
                chosen = [words[int(VOCABULARY * rng.random() ** 3)] for _ in range(DOCUMENT_WORDS)]
                text = "\n".join(
                    " ".join(chosen[start : start + 14]) + "." for start in range(0, DOCUMENT_WORDS, 14)
                )
                recent = [*recent[-499:], text]
            file.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode())


def measure_baseline(source: Path) -> float:
    """MB/s over the first part of the file."""
    seen: set[bytes] = set()
    started = time.perf_counter()
    with source.open(encoding="utf-8") as file:
        size = 0
        for line in file:
            size += len(line)
            if size > BASELINE_BYTES:
                break
            text = unicodedata.normalize("NFC", json.loads(line)["text"])
            lines = [part.strip() for part in text.split("\n")]
            words = text.lower().split()
            seen.add(blake2b(" ".join(words).encode(), digest_size=16).digest())
            len({tuple(words[start : start + 5]) for start in range(len(words) - 4)}), len(set(lines))
    return size / 1e6 / (time.perf_counter() - started)


def measure_build(
    source: Path, cleaning: CleaningConfig, workers: int, out: Path
) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds, bytes and documents of one build."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=build, args=(source, cleaning, workers, out, sender))
    process.start()
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, resident_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, cpu, documents = receiver.recv()
    done.set()
    watcher.join()
    process.join()
    return seconds, cpu, peak, documents


def build(source: Path, cleaning: CleaningConfig, workers: int, out: Path, sender: Connection) -> None:
    sources = [FileSource(type="file", path=str(source))]
    started = time.perf_counter()
    corpus = build_corpus(open_sources(sources, artifact_path=Path), sources, cleaning, 0, out, workers)
    seconds = time.perf_counter() - started
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    sender.send((seconds, sum(u.ru_utime + u.ru_stime for u in usage), corpus.stats.num_documents))


def resident_bytes(root: int | None) -> int:
    """Of a process and all below it (Linux), by `ps`."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True)
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    inside, before = {root}, 0
    while len(inside) > before:
        before = len(inside)
        inside |= {pid for pid, parent, _ in rows if parent in inside}
    return sum(1024 * rss for pid, _, rss in rows if pid in inside)


if __name__ == "__main__":
    main()
