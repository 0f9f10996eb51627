"""How bench/train_gpu.py comes to joules per step: a counter that is read beside a process, by a counter that is made up."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench"
WATTS = 300.0


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def even_power() -> int:
    return round(1000 * WATTS * time.perf_counter())


def test_joules_are_those_between_the_two_moments(bench: Callable[[str], Any]) -> None:
    with bench("gpu_energy").EnergyLog(even_power, interval_seconds=0.001) as log:
        begin = time.perf_counter()
        while (end := time.perf_counter()) - begin < 0.2:
            pass
    assert log.joules(begin, end) == pytest.approx(WATTS * (end - begin), rel=0.05)
    for moments in ((begin - 100, end), (begin, end + 100)):
        with pytest.raises(OSError, match="not read all the time"):
            log.joules(*moments)


def test_a_counter_that_fails_gives_its_reason_and_no_figure(bench: Callable[[str], Any]) -> None:
    def fail() -> int:
        raise OSError("nvmlInit_v2 gave 9")

    with bench("gpu_energy").EnergyLog(fail) as log:
        pass
    with pytest.raises(OSError, match="gave 9"):
        log.joules(0.0, 1.0)


def test_joules_per_step_leave_the_start_and_the_warm_steps_out(bench: Callable[[str], Any]) -> None:
    class Spans:
        def joules(self, begin: float, end: float) -> float:
            self.span = (begin, end)
            return 600.0

    spans, steps = Spans(), {"first_step_seconds": 10.0, "step_seconds": [3.0, 2.0, 0.5, 0.5, 0.5]}
    found = bench("train_gpu").joules_per_step(spans, 100.0, steps)
    assert spans.span == (115.0, 116.5)  # after the three warm steps, of which the first is not in the list
    assert found == 200.0
