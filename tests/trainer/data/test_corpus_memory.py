"""A build holds batches, not corpora: its memory stays far below the text's size, workers included."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

CORPUS_BYTES = 60_000_000
BOUND_BYTES = 45_000_000
"""Grown above what the imports take; the whole text as Python strings would be 60 MB at least."""
PROGRAM = """
import re, sys
from pathlib import Path
from picochat_contract.data_configs import CleaningConfig, FileSource
from picochat_trainer.data.corpus import build_corpus
from picochat_trainer.data.sources import open_sources

def peak_bytes():
    # not getrusage: a child's figure begins at the peak of the process that started it
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def build(path, out):
    source = FileSource(type="file", path=path)
    build_corpus(open_sources([source], artifact_path=Path), [source], CleaningConfig(near_duplicates=False), 0, Path(out), 1)

small, large, out = sys.argv[1:4]
build(small, out + "/small")
before = peak_bytes()
if sys.argv[4:] == ["hold"]:
    held = [line for line in open(large, encoding="utf-8")]
build(large, out + "/large")
print(peak_bytes() - before)
"""


def write_documents(path: Path, size_bytes: int) -> None:
    rng = random.Random(3)
    sentences = [" ".join(rng.choices(["abcdefgh", "ijklmnop", "qrstuv", "wxyz"], k=300)) for _ in range(200)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(size_bytes // 8_000):
            body = "\n".join(rng.sample(sentences, 4))
            file.write(json.dumps({"text": f"{number}\n{body}"}) + "\n")


@pytest.mark.parametrize("mode", ["stream", "hold"])
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, mode: str) -> None:
    write_documents(tmp_path / "small.jsonl", 6_000_000)
    write_documents(tmp_path / "large.jsonl", CORPUS_BYTES)
    arguments = [str(tmp_path / "small.jsonl"), str(tmp_path / "large.jsonl"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments, *(["hold"] if mode == "hold" else [])],
        capture_output=True,
        text=True,
        check=True,
    )
    grown = int(done.stdout)
    assert (grown < BOUND_BYTES) == (mode == "stream"), f"grew by {grown / 1e6:.0f} MB"
