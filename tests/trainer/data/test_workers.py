"""Results in order, processes only for large work, and an end that waits for nobody."""

import os
from collections.abc import Iterator

import pytest
from picochat_trainer.data.workers import Workers


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fail(number: int) -> int:
    raise ValueError(f"no {number}")


def squares(workers: Workers, numbers: Iterator[int] | range, size: int = 1) -> list[tuple[int, int]]:
    found = workers.map(square, numbers, task=lambda number: number, size_bytes=lambda number: size)
    return [result for _, result in found]


def test_small_work_stays_in_this_process() -> None:
    with Workers(4, pool_after_bytes=10) as workers:
        assert squares(workers, range(9)) == [(n * n, os.getpid()) for n in range(9)]


def test_large_work_moves_to_processes_and_stays_in_order() -> None:
    with Workers(2, pool_after_bytes=5) as workers:
        found = squares(workers, range(40))
    assert [value for value, _ in found] == [n * n for n in range(40)]
    pids = [pid for _, pid in found]
    assert pids[:5] == [os.getpid()] * 5
    assert os.getpid() not in pids[5:]


def test_one_worker_never_starts_a_process() -> None:
    with Workers(1, pool_after_bytes=0) as workers:
        assert {pid for _, pid in squares(workers, range(5), size=1 << 40)} == {os.getpid()}


def test_items_are_read_only_a_little_ahead() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    with Workers(2, pool_after_bytes=0) as workers:
        results = workers.map(square, numbers(), task=lambda number: number, size_bytes=lambda number: 1)
        next(results)
        assert len(read) <= 6


@pytest.mark.parametrize("pool_after_bytes", [0, 100])
def test_an_error_reaches_the_caller(pool_after_bytes: int) -> None:
    with Workers(2, pool_after_bytes=pool_after_bytes) as workers, pytest.raises(ValueError, match="no 0"):
        list(workers.map(fail, range(3), task=lambda number: number, size_bytes=lambda number: 1))
