"""Chart geometry: what is drawn stays inside, what cannot be drawn is counted."""

import math
import re

import pytest
from picochat_server.pages.curves import HEIGHT, WIDTH, Chart, Series, chart, number, thin


def drawn(*series: Series) -> Chart:
    made = chart("loss", "Loss", "nats", series)
    assert made is not None
    return made


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


@pytest.mark.parametrize(
    "values", [[3.0, 2.0, 1.0], [5.0], [0.0, 0.0], [1e-9, 2e-9], [1e300, -1e300], [-5.0, 5.0]]
)
def test_everything_lies_inside_the_drawing(values: list[float]) -> None:
    made = drawn(Series(name="x", steps=list(range(len(values))), values=values))
    found = points(made.lines[0].path)
    assert len(found) == len(values)
    for x, y in found:
        assert made.left <= x <= made.right
        assert made.top <= y <= made.bottom
    for tick in made.y_ticks:
        assert 0 <= tick.position <= HEIGHT
    for tick in made.x_ticks:
        assert 0 <= tick.position <= WIDTH


def test_a_lower_value_is_drawn_lower() -> None:
    (_, first), (_, last) = points(drawn(Series(name="x", steps=[0, 9], values=[5.0, 1.0])).lines[0].path)
    assert last > first


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_measured_is_no_chart(values: list[float]) -> None:
    assert chart("x", "x", "x", [Series(name="x", steps=list(range(len(values))), values=values)]) is None


def test_values_that_are_not_finite_are_counted() -> None:
    line = drawn(Series(name="x", steps=[1, 2, 3], values=[1.0, math.nan, 2.0])).lines[0]
    assert (line.num_points, line.num_nonfinite) == (2, 1)


def test_the_summary_names_the_last_and_the_lowest_value() -> None:
    made = drawn(Series(name="val_bpb", steps=[10, 20, 30], values=[3.0, 1.25, 1.5]))
    assert made.summary == "val_bpb 1.5 at step 30, lowest 1.25"


def test_a_repeated_step_counts_once_with_its_later_value() -> None:
    line = drawn(Series(name="x", steps=[1, 2, 2], values=[3.0, 9.0, 2.0])).lines[0]
    assert (line.num_points, line.last_value) == (2, 2.0)


def test_thinning_keeps_ends_and_spikes() -> None:
    series = [(step, 1.0) for step in range(10_000)]
    series[4321] = (4321, 99.0)
    kept = thin(series, limit=100)
    assert len(kept) <= 100
    assert kept[0][0] == 0
    assert kept[-1][0] == 9_999
    assert (4321, 99.0) in kept
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})


@pytest.mark.parametrize(
    ("value", "text"), [(2.0361, "2.036"), (0.00012345, "0.0001234"), (21840.2, "21,840"), (0, "0")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
