"""How much of a corpus is repeated lines: exact while it is small, else over the lines whose digest falls in a fixed
share of all digests (distinct sampling, Gibbons 2001), so that memory stays the same for any corpus."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_LINES: Final = 1_000_000


def sample_bits(num_lines: int) -> int:
    """One line in 2^bits is looked at, so that about MAX_LINES are."""
    return max(0, (max(num_lines, 1) - 1).bit_length() - (MAX_LINES - 1).bit_length())


@dataclass(frozen=True)
class LineSample:
    """Digests of sampled lines, ascending, with how often each came."""

    digests: NDArray[np.uint64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, digests: NDArray[np.uint64], bits: int) -> "LineSample":
        """The sample out of all digests."""
        chosen = digests[digests & np.uint64((1 << bits) - 1) == 0]
        return cls(*np.unique(chosen, return_counts=True))

    @property
    def repeated_share(self) -> float:
        """Share of the lines that repeat an earlier one."""
        total = int(self.counts.sum())
        return 1 - len(self.digests) / total if total else 0.0


def merged(samples: "list[LineSample]") -> LineSample:
    """One sample of several texts."""
    if not samples:
        return LineSample(np.empty(0, np.uint64), np.empty(0, np.int64))
    digests, places = np.unique(np.concatenate([sample.digests for sample in samples]), return_inverse=True)
    counts = np.zeros(len(digests), np.int64)
    np.add.at(counts, places, np.concatenate([sample.counts for sample in samples]))
    return LineSample(digests, counts)
