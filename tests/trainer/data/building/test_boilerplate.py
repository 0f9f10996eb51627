"""Counting on disk finds exactly the digests that came often enough."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from picochat_trainer.data.building.boilerplate import LineCounter


@pytest.mark.parametrize("min_count", [1, 2, 3, 50])
def test_frequent_digests_are_those_of_a_plain_count(tmp_path: Path, min_count: int) -> None:
    rng = np.random.default_rng(5)
    rounds = [rng.integers(0, 2**64, 200, np.uint64)[rng.integers(0, 200, 300)] for _ in range(3)]
    rounds += rounds[:1]
    counter = LineCounter(tmp_path)
    for digests in rounds:
        counter.add(digests)
    expected = sorted(
        value for value, num in Counter(np.concatenate(rounds).tolist()).items() if num >= min_count
    )
    assert counter.frequent(min_count).tolist() == expected
    assert list(tmp_path.iterdir()) == []
