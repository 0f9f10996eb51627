from pathlib import Path

import numpy as np
import pytest
from picochat_trainer.training.packing import PackedRows, load_plan, pack, save_plan, split_long
from picochat_trainer.training.tokens import Spans


def documents(lengths: list[int]) -> Spans:
    array = np.array(lengths, dtype=np.int64)
    return Spans(addresses=np.cumsum(array) - array, lengths=array)


def realistic(count: int = 3000) -> Spans:
    """Lengths as of web text: log-normal around 330 tokens, with a long tail."""
    rng = np.random.default_rng(5)
    return documents(np.clip(rng.lognormal(5.8, 1.1, count), 2, 50_000).astype(int).tolist())


def row_lengths(rows: PackedRows) -> np.ndarray:
    return np.add.reduceat(rows.pieces.lengths, rows.firsts[:-1])


@pytest.mark.parametrize("row_len", [17, 129, 513, 2049])
def test_no_row_is_too_long_and_every_token_is_in_a_row(row_len: int) -> None:
    given = realistic()
    rows = pack(given, row_len, seed=1)
    assert row_lengths(rows).max() <= row_len
    covered = np.zeros(given.num_tokens, dtype=np.int64)
    for address, length in zip(rows.pieces.addresses, rows.pieces.lengths, strict=True):
        covered[address : address + length] += 1
    assert covered.min() == 1
    assert covered.sum() == given.num_tokens + len(rows.pieces) - len(given)  # a continuation repeats one
    assert rows.used_tokens == given.num_tokens


def test_long_documents_are_split_so_that_every_token_is_a_target_once() -> None:
    pieces = split_long(documents([4, 9, 10, 1, 5]), 5)
    assert pieces.addresses.tolist() == [0, 4, 8, 13, 17, 21, 23, 24]
    assert pieces.lengths.tolist() == [4, 5, 5, 5, 5, 2, 1, 5]
    assert (pieces.lengths - 1).sum() == (np.array([4, 9, 10, 1, 5]) - 1).sum()


@pytest.mark.parametrize("lengths", [[10, 10, 1], [10, 1, 28], [1, 1, 1], [1] * 11])
def test_no_row_is_without_a_target(lengths: list[int]) -> None:
    """The loss over none is not a number, and would spoil the step that it is in."""
    rows = pack(documents(lengths), 10, seed=1)
    assert rows.num_targets.min() >= 1
    lost = sum(lengths) - rows.used_tokens
    assert lost == (0 if lengths == [1, 1, 1] else 1)
    assert rows.num_tokens == sum(lengths)


def test_a_realistic_corpus_leaves_under_two_percent_of_the_rows_empty() -> None:
    rows = pack(realistic(), 513, seed=1)
    assert rows.filled_fraction > 0.98
    assert rows.num_targets.sum() == rows.pieces.num_tokens - len(rows)


def test_rows_follow_from_lengths_and_seed() -> None:
    first, again, other = (pack(realistic(300), 65, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.pieces.addresses, again.pieces.addresses)
    assert not np.array_equal(first.pieces.addresses, other.pieces.addresses)
    assert len(first) == len(other)


def test_best_fit_puts_a_piece_where_least_room_is_left() -> None:
    # 7 and 6 open rows with room for 3 and 4 of 10; the 3 fits exactly beside 7, the 4 beside 6.
    rows = pack(documents([7, 6, 4, 3]), 10, seed=1)
    assert sorted(sorted(part) for part in np.split(rows.pieces.lengths, rows.firsts[1:-1])) == [
        [3, 7],
        [4, 6],
    ]


def plain_best_fit(lengths: list[int], row_len: int) -> int:
    """Rows that best-fit decreasing needs, one piece at a time."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(row_len - length)
    return len(rooms)


@pytest.mark.parametrize("seed", range(5))
def test_it_needs_as_many_rows_as_packing_piece_by_piece(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 33, 200).tolist()
    assert len(pack(documents(lengths), 32, seed)) == plain_best_fit(lengths, 32)


@pytest.mark.parametrize("lengths", [[2], [5, 5], [1, 1, 1, 1], [100]])
def test_few_documents_are_packed_too(lengths: list[int]) -> None:
    rows = pack(documents(lengths), 5, seed=1)
    assert rows.used_tokens == sum(lengths)


@pytest.mark.parametrize("lengths", [[], [1]])
def test_documents_without_text_are_no_rows(lengths: list[int]) -> None:
    rows = pack(documents(lengths), 5, seed=1)
    assert (len(rows), rows.used_tokens, rows.filled_fraction) == (0, 0, 0.0)


def test_a_saved_plan_is_the_plan(tmp_path: Path) -> None:
    plan = pack(realistic(200), 129, seed=1)
    save_plan(plan, tmp_path / "plan")
    loaded = load_plan(tmp_path / "plan")
    assert (loaded.row_len, loaded.num_documents, loaded.num_tokens) == (129, 200, plan.num_tokens)
    assert loaded.firsts.tolist() == plan.firsts.tolist()
    assert loaded.pieces.addresses.tolist() == plan.pieces.addresses.tolist()
    assert loaded.pieces.lengths.tolist() == plan.pieces.lengths.tolist()
