"""Metric series to chart geometry. Pure: points in, coordinates out; the template draws them as SVG.

Coordinates are attributes of SVG elements, never style, so that the strict CSP holds and the page needs no
script. What cannot be drawn (NaN, Infinity) is counted, not hidden.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 380, 180  # near the width at which a chart is shown, so that its text keeps its size
LEFT, RIGHT, TOP, BOTTOM = 42, 16, 8, 24
MAX_POINTS = 400
MAX_TICKS = 5
DASHES = ("", "5 3", "1.5 3")  # lines differ by dash as well as by colour


@dataclass(frozen=True, kw_only=True)
class Series:
    """Measured points of one metric of one stage."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Tick:
    position: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    path: str
    """SVG path data."""
    color: str
    """Class name: c0, c1, c2."""
    dash: str
    last_step: int
    last_value: float
    last_x: float
    last_y: float
    lowest_value: float
    num_points: int
    num_nonfinite: int


@dataclass(frozen=True, kw_only=True)
class Chart:
    id: str
    title: str
    unit: str
    note: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM

    @property
    def summary(self) -> str:
        """One sentence for readers who do not see the drawing."""
        return "; ".join(
            f"{line.name} {number(line.last_value)} at step {line.last_step}, lowest {number(line.lowest_value)}"
            for line in self.lines
        )


def chart(id: str, title: str, unit: str, series: Sequence[Series], note: str = "") -> Chart | None:
    """Lay the series out over common axes; None where no finite point was measured."""
    drawable = [(one, finite) for one in series if (finite := _finite(one))]
    if not drawable:
        return None
    every = [point for _, points in drawable for point in points]
    x_scale = _Scale.over([step for step, _ in every], LEFT, WIDTH - RIGHT)
    y_scale = _Scale.over([value for _, value in every], HEIGHT - BOTTOM, TOP, pad=0.05)
    return Chart(
        id=id,
        title=title,
        unit=unit,
        note=note,
        lines=tuple(
            _line(index, one, points, x_scale, y_scale) for index, (one, points) in enumerate(drawable)
        ),
        x_ticks=tuple(
            Tick(position=x_scale(value), label=_step_label(value)) for value in x_scale.ticks(whole=True)
        ),
        y_ticks=tuple(Tick(position=y_scale(value), label=number(value)) for value in y_scale.ticks()),
    )


def number(value: float) -> str:
    """A measured number in four significant digits."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def thin(points: Sequence[tuple[int, float]], limit: int = MAX_POINTS) -> list[tuple[int, float]]:
    """At most `limit` points; each bucket keeps its lowest and highest, so spikes stay visible."""
    if len(points) <= limit:
        return list(points)
    inner = points[1:-1]
    num_buckets = max(1, (limit - 2) // 2)
    kept = [points[0]]
    for index in range(num_buckets):
        bucket = inner[index * len(inner) // num_buckets : (index + 1) * len(inner) // num_buckets]
        ends = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])} if bucket else set()
        kept += sorted(ends)
    return [*kept, points[-1]]


@dataclass(frozen=True)
class _Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, pad: float = 0.0) -> "_Scale":
        low, high = min(values), max(values)
        if low == high:
            slack = abs(low) * 0.1 or 1.0
            return cls(low - slack, high + slack, start, end)
        slack = (high - low) * pad
        return cls(low - slack, high + slack, start, end)

    def __call__(self, value: float) -> float:
        # Divided first: the difference of two huge values times a width would overflow.
        part = value / (self.high - self.low) - self.low / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self, *, whole: bool = False) -> list[float]:
        """Round values inside the range, at most MAX_TICKS + 1 of them."""
        raw = (self.high - self.low) / MAX_TICKS
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * 0.999)
        if whole:
            step = max(1.0, step)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step + 0.0 for index in range(first, last + 1)]


def _finite(series: Series) -> list[tuple[int, float]]:
    """Finite points by step; of a step that was measured twice (a resumed attempt) the later one counts."""
    return sorted(
        {
            step: value
            for step, value in zip(series.steps, series.values, strict=True)
            if math.isfinite(value)
        }.items()
    )


def _line(index: int, series: Series, points: list[tuple[int, float]], x: _Scale, y: _Scale) -> Line:
    drawn = [(x(step), y(value)) for step, value in thin(points)]
    last_step, last_value = points[-1]
    return Line(
        name=series.name,
        path="M" + "L".join(f"{px:g} {py:g}" for px, py in drawn),
        color=f"c{index % 3}",
        dash=DASHES[index % 3],
        last_step=last_step,
        last_value=last_value,
        last_x=drawn[-1][0],
        last_y=drawn[-1][1],
        lowest_value=min(value for _, value in points),
        num_points=len(points),
        num_nonfinite=sum(1 for value in series.values if not math.isfinite(value)),
    )


def _step_label(value: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1000 if suffix == 'k' else size):g}{suffix}"
    return f"{value:g}"
