"""Seeded permutations of any length, of which any part can be had: the order in which an epoch visits its rows.

Short ones are numpy's and lie in memory. Long ones are a Feistel network over the next power of four with cycle
walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002): every row once, mixed over the
whole corpus, in no memory.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

IN_MEMORY: Final = 1 << 24  # numbers: 128 MiB
_ROUNDS: Final = 8

Order = Callable[[int, int], NDArray[np.int64]]
"""order(first, count): places `first` to `first + count` of the permutation."""


def permutation(rng: np.random.Generator, count: int) -> Order:
    """A permutation of 0 to count - 1 that follows from the state of `rng`."""
    if count <= IN_MEMORY:
        whole = rng.permutation(count)
        return lambda first, length: whole[first : first + length]
    return feistel(rng, count)


def feistel(rng: np.random.Generator, count: int) -> Order:
    """The permutation of `permutation` for counts that do not fit in memory."""
    half_bits = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    keys = rng.integers(0, 1 << 63, size=_ROUNDS, dtype=np.uint64)

    def permuted(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = numbers >> half_bits, numbers & mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        return (left << half_bits) | right

    def order(first: int, length: int) -> NDArray[np.int64]:
        numbers = permuted(np.arange(first, min(first + length, count), dtype=np.uint64))
        while (outside := numbers >= count).any():
            numbers[outside] = permuted(numbers[outside])
        return numbers.astype(np.int64)

    return order


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
