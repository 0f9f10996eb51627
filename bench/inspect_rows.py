"""Inspection of tuning rows: time and recall of near-duplicate prompts, beside datasketch on the same prompts.

    python bench/inspect_rows.py [--rows 100000] [--baseline-rows 10000]

Rows are random sentences, sums and one crowded template; planted near duplicates differ in one word or have one more.
Prints one table. The baseline is MinHashLSH of datasketch with as many hashes and the same edit ratio on its candidates.
CPU seconds, so that other work on the machine does not count. Does not measure real prompts.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from datasketch import MinHash, MinHashLSH
from picochat_trainer.tuning.inspect import inspect_file
from picochat_trainer.tuning.near_prompts import BAND_ROWS, NEAR, NUM_BANDS, near_prompts
from rapidfuzz import fuzz

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PLANTED_SHARE = 0.1
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--baseline-rows", type=int, default=10_000)
    sizes = parser.parse_args()
    print(f"{'what':<34} {'rows':>8} {'cpu s':>8} {'rows/s':>8} {'planted found':>14} {'ratio':>6}")
    _, baseline = _measure("near duplicates, datasketch", sizes.baseline_rows, _datasketch, None)
    for rows in (sizes.baseline_rows, sizes.rows // 4, sizes.rows):
        _measure("near duplicates", rows, _ours, baseline)
    for rows in (sizes.rows // 4, sizes.rows):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chat.jsonl"
            prompts, _ = _prompts(rows)
            path.write_text("".join(json.dumps({"user": p, "assistant": p[::-1]}) + "\n" for p in prompts))
            seconds = _seconds(lambda path=path: inspect_file(path))[0]
        print(f"{'whole inspection of a chat file':<34} {rows:>8} {seconds:>8.2f} {rows / seconds:>8.0f}")


def _measure(
    name: str, rows: int, find: Callable[[Sequence[str]], set[int]], baseline: float | None
) -> tuple[set[int], float]:
    prompts, planted = _prompts(rows)
    seconds, found = _seconds(lambda: find(prompts))
    speed = rows / seconds
    recall = f"{len(found & planted)} of {len(planted)}"
    ratio = f"{speed / baseline:.1f}x" if baseline else ""
    print(f"{name:<34} {rows:>8} {seconds:>8.2f} {speed:>8.0f} {recall:>14} {ratio:>6}")
    return found, speed


def _prompts(rows: int) -> tuple[list[str], set[int]]:
    """Different prompts in normal form, and the places of the planted near duplicates."""
    rng = random.Random(1)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(3, 9))) for _ in range(20_000)]
    originals: dict[str, None] = {}
    while len(originals) < rows * (1 - PLANTED_SHARE):
        kind = rng.random()
        if kind < 0.6:
            originals[" ".join(rng.choices(words, k=rng.randint(8, 30)))] = None
        elif kind < 0.8:
            originals[f"what is {rng.randint(10, 99_999)} + {rng.randint(10, 99_999)}"] = None
        else:
            originals[f"what is the capital of the land of {' '.join(rng.choices(words, k=2))}"] = None
    long = [prompt for prompt in originals if len(prompt.split()) >= 12]
    copies: dict[str, None] = {}
    while len(copies) < rows - len(originals):
        prompt = rng.choice(long).split()
        prompt[rng.randrange(len(prompt))] = rng.choice(words)
        copies[" ".join(prompt)] = None
    prompts = list(dict.fromkeys([*originals, *copies]))
    return prompts, set(range(len(originals), len(prompts)))


def _ours(prompts: Sequence[str]) -> set[int]:
    return {near.index for near in near_prompts(prompts)}


def _datasketch(prompts: Sequence[str]) -> set[int]:
    num_perm = NUM_BANDS * BAND_ROWS
    index = MinHashLSH(num_perm=num_perm, params=(NUM_BANDS, BAND_ROWS))
    found: set[int] = set()
    for number, prompt in enumerate(prompts):
        words = prompt.split()
        sketch = MinHash(num_perm=num_perm)
        sketch.update_batch([s.encode() for s in [*words, *map(" ".join, pairwise(words))]])
        candidates = index.query(sketch)
        if any(fuzz.ratio(prompt, prompts[other], score_cutoff=100 * NEAR) for other in candidates):
            found.add(number)
        else:
            index.insert(number, sketch, check_duplication=False)
    return found


def _seconds(call: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


if __name__ == "__main__":
    main()
