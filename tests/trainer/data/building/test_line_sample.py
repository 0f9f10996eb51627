"""The share of repeated lines: exact for small texts, close to it from a sample, the same in any grouping."""

import numpy as np
import pytest
from picochat_trainer.data.building.line_sample import MAX_LINES, LineSample, merged, sample_bits

RNG = np.random.default_rng(9)
DIGESTS = RNG.integers(0, 2**64, 60_000, np.uint64)[RNG.integers(0, 60_000, 100_000)]


def test_small_texts_are_measured_whole() -> None:
    digests = np.array([7, 7, 8, 9], np.uint64)
    assert LineSample.of(digests, 0).repeated_share == 0.25
    assert merged([]).repeated_share == 0


@pytest.mark.parametrize("bits", [0, 3])
def test_parts_add_up_to_the_whole(bits: int) -> None:
    parts = [LineSample.of(part, bits) for part in np.array_split(DIGESTS, 7)]
    whole = LineSample.of(DIGESTS, bits)
    assert merged(parts).digests.tolist() == whole.digests.tolist()
    assert merged(parts).counts.tolist() == whole.counts.tolist()


def test_a_sample_is_close_to_the_whole() -> None:
    whole, part = LineSample.of(DIGESTS, 0), LineSample.of(DIGESTS, 4)
    assert len(part.digests) < len(whole.digests) / 10
    assert part.repeated_share == pytest.approx(whole.repeated_share, abs=0.03)


@pytest.mark.parametrize(
    ("num_lines", "bits"), [(0, 0), (MAX_LINES, 0), (1 << 21, 1), (100 * MAX_LINES, 7), (10**9, 10)]
)
def test_the_sample_stays_about_as_large_for_any_corpus(num_lines: int, bits: int) -> None:
    assert sample_bits(num_lines) == bits
    assert num_lines / 2**bits < 2 * MAX_LINES
