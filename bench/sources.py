"""How fast source files are read into documents, and with how much memory: `python bench/sources.py`.

Writes one corpus of random English-like text in each kind, reads it through `open_sources` in a process of its own,
and prints MB/s of text and the growth of the peak memory. Baseline, in the same run: the plainest loop that reads
the same file whole (`json.loads` over the lines of a .jsonl, `pyarrow.parquet.read_table` of a .parquet).
"""

import argparse
import gzip
import json
import multiprocessing
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from picochat_contract.data_configs import FileSource
from picochat_trainer.data.sources import open_sources

WORDS = [
    "harbour",
    "keeper",
    "lamp",
    "the",
    "of",
    "a",
    "wave",
    "north",
    "counts",
    "caf\u00e9",
    "evening",
    "rope",
]
DOCUMENT_BYTES = 4_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200, help="of text in each file")
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), megabytes * 10**6)
        print(
            f"{'file':<16}{'size MB':>9}{'MB/s':>8}{'baseline':>10}{'ratio':>7}{'peak +MiB':>11}{'baseline':>10}"
        )
        for path, baseline in files.items():
            ours, theirs = in_child(stream, path), in_child(baseline, path)
            speed, plain = (size / seconds / 1e6 for size, seconds, _ in (ours, theirs))
            print(
                f"{path.name:<16}{path.stat().st_size / 1e6:>9.1f}{speed:>8.0f}{plain:>10.0f}{speed / plain:>7.2f}"
                f"{ours[2]:>11.0f}{theirs[2]:>10.0f}"
            )


def write_files(folder: Path, size: int) -> dict[Path, Callable[[Path], int]]:
    rows, table = folder / "a.jsonl", folder / "a.parquet"
    with rows.open("w", encoding="utf-8") as file:
        for text in texts(size):
            file.write(json.dumps({"id": "x", "text": text}) + "\n")
    # One row group: the worst case for a reader that should not hold one.
    pq.write_table(pa.table({"text": list(texts(size))}), table, compression="zstd", row_group_size=1 << 30)
    packed = folder / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(rows.read_bytes(), 1))
    return {rows: whole_jsonl, packed: whole_jsonl, table: whole_parquet}


def texts(size: int) -> Iterator[str]:
    generator, written = random.Random(1), 0
    while written < size:
        text = " ".join(generator.choices(WORDS, k=DOCUMENT_BYTES // 6))
        written += len(text.encode())
        yield text


def stream(path: Path) -> int:
    files = open_sources([FileSource(type="file", path=str(path))], artifact_path=Path)
    return sum(len(document.text) for file in files if file.documents for document in file.documents())


def whole_jsonl(path: Path) -> int:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return sum(len(json.loads(line)["text"]) for line in raw.decode().split("\n") if line)


def whole_parquet(path: Path) -> int:
    return sum(len(text) for text in pq.read_table(path, columns=["text"])["text"].to_pylist())


def in_child(read: Callable[[Path], int], path: Path) -> tuple[int, float, float]:
    """Characters, seconds, and MiB by which the peak memory grew, measured in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (read, path))


def measured(read: Callable[[Path], int], path: Path) -> tuple[int, float, float]:
    before, started = peak_mib(), time.perf_counter()
    size = read(path)
    return size, time.perf_counter() - started, peak_mib() - before


def peak_mib() -> float:
    # Not getrusage(): its maximum goes over from the parent to a child that was forked and then executed.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
