"""What a training took."""

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_trainer.training.energy import EnergyMeter, total_millijoules
from picochat_trainer.training.machine import listed_peak, matmul_rate, memory_peak, peak_flops
from picochat_trainer.training.metrics import Meter, process_age
from support.trainings import MODEL, T, tiny_model


def test_narrow_batches_cost_less_attention_and_nothing_else() -> None:
    model = tiny_model()
    matmul = model.flops_per_token() - 12 * MODEL.n_layer * MODEL.n_embd * T
    meter = Meter(model, "cpu", None, 1)
    meter.count([(2, T // 2)])
    assert meter._flops == 2 * (T // 2) * (matmul + 12 * MODEL.n_layer * MODEL.n_embd * (T // 2))
    whole = Meter(model, "cpu", None, 1)
    assert whole.count([(2, T), (2, T)]) == 4 * T
    assert whole._flops == 4 * T * model.flops_per_token()


def test_utilisation_is_that_of_one_of_the_ranks_whose_batches_were_counted() -> None:
    meter = Meter(tiny_model(), "cpu", None, 3)
    assert meter.count([(2, T)] * 3) == 3 * 2 * T
    meter.clock.train = 2.0
    found = meter.report()
    flops = 3 * 2 * T * tiny_model().flops_per_token()
    assert found["gflops_per_second"] == pytest.approx(flops / 2e9)
    assert found["mfu"] == pytest.approx(flops / 2 / 3 / found["peak"]["flops_per_second"])


def test_a_process_without_a_step_reports_no_speed() -> None:
    found = Meter(tiny_model(), "cpu", None, 1).report()
    names = ("tokens_per_second", "gflops_per_second", "mfu", "peak", "data_wait_share", "first_step_seconds")
    assert all(found[name] is None for name in names)


def test_the_speed_of_an_interval_leaves_out_what_was_before() -> None:
    meter = Meter(tiny_model(), "cpu", None, 1)
    meter.count([(2, T)])
    meter.clock.train = 1.0
    assert meter.interval_speed() == pytest.approx(2 * T)
    meter.count([(8, T)])
    meter.clock.train = 3.0
    assert meter.interval_speed() == pytest.approx(4 * T)


def test_the_age_of_the_process_is_read_where_linux_tells_it(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    fields = ["S", *["0"] * 18, "250", *["0"] * 10]
    (tmp_path / "self/stat").write_text(f"77 (a name) with) {' '.join(fields)}")
    (tmp_path / "uptime").write_text("12.5 20.0")
    assert process_age(tmp_path) == pytest.approx(12.5 - 250 / 100)
    assert process_age(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H200", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("T4", None)],
)
def test_peaks_are_those_of_data_sheets(name: str, peak: float | None) -> None:
    assert listed_peak(name) == peak


def test_the_cpu_has_no_listed_peak_so_it_is_measured() -> None:
    assert peak_flops("cpu", torch.bfloat16) is None
    assert matmul_rate("cpu", None) > 1e8


def test_the_memory_peak_holds_what_was_taken() -> None:
    block = torch.ones(64 << 20, dtype=torch.uint8)
    assert memory_peak("cpu") > block.numel()


class Library:
    """Answers like NVML: codes, and results through pointers."""

    def __init__(self, codes: dict[str, int], total: int = 0) -> None:
        self.codes, self.total = codes, total

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> int:
            if name == "nvmlDeviceGetTotalEnergyConsumption":
                args[1]._obj.value = self.total
            return self.codes.get(name, 0)

        return call


def test_energy_is_the_rise_of_the_device_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library({}, total=5_000)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr("picochat_trainer.training.energy._uuid_of", lambda device: ("GPU-1", None))
    meter = EnergyMeter("cuda:0")
    library.total = 12_500
    assert meter.joules() == (7.5, None)


def test_a_device_without_a_counter_gives_no_energy_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Library({"nvmlDeviceGetTotalEnergyConsumption": 3})
    with pytest.raises(OSError, match="nvmlDeviceGetTotalEnergyConsumption gave 3"):
        total_millijoules(refusing, "GPU-1")  # type: ignore[arg-type]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: refusing)
    monkeypatch.setattr("picochat_trainer.training.energy._uuid_of", lambda device: ("GPU-1", None))
    joules, note = EnergyMeter("cuda:0").joules()
    assert joules is None and note is not None and "gave 3" in note


def test_the_cpu_tells_no_energy() -> None:
    assert EnergyMeter("cpu").joules() == (None, "no energy counter: training ran on the CPU")
