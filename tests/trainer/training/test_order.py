import numpy as np
import pytest
from picochat_trainer.training import order
from picochat_trainer.training.order import feistel, permutation


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 1000, 4097, 65_536, 65_537])
def test_the_long_order_visits_every_row_once(count: int) -> None:
    rows = feistel(np.random.default_rng(1), count)(0, count)
    assert sorted(rows) == list(range(count))


def test_any_part_of_it_is_that_part() -> None:
    found = feistel(np.random.default_rng(1), 1000)
    whole = found(0, 1000)
    assert np.array_equal(np.concatenate([found(i, 37) for i in range(0, 1000, 37)]), whole)


def test_it_mixes_and_follows_the_seed() -> None:
    first, again, other = (feistel(np.random.default_rng(s), 10_000)(0, 10_000) for s in (1, 1, 2))
    assert np.array_equal(first, again) and (first != other).mean() > 0.99
    # Neighbours in the order lie about a third of the range apart, as they do in a random one.
    assert np.abs(np.diff(first)).mean() == pytest.approx(10_000 / 3, rel=0.05)
    assert abs(np.corrcoef(first, np.arange(10_000))[0, 1]) < 0.05


def test_short_orders_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.random.default_rng(3).permutation(100)
    assert np.array_equal(permutation(np.random.default_rng(3), 100)(20, 30), expected[20:50])
    monkeypatch.setattr(order, "IN_MEMORY", 99)
    assert sorted(permutation(np.random.default_rng(3), 100)(0, 100)) == list(range(100))
