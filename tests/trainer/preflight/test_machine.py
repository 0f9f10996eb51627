"""The machine's facts, and that a machine without a driver never waits for torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from picochat_trainer.preflight import machine
from picochat_trainer.preflight.machine import machine_facts, memory_bytes, visible_gpus
from picochat_trainer.training import hardware


def test_the_machine_that_runs_this_is_measured(tmp_path: Path) -> None:
    facts = machine_facts(tmp_path, 3)
    assert facts.cpu_count >= 1 and facts.ram_bytes > 1 << 28
    assert facts.free_disk_bytes > 0 and facts.world_size == 3


@pytest.mark.parametrize(("limit", "is_less"), [("1000000\n", True), ("max\n", False), ("", False)])
def test_a_container_has_the_memory_that_it_is_allowed(tmp_path: Path, limit: str, is_less: bool) -> None:
    path = tmp_path / "memory.max"
    path.write_text(limit)
    assert (memory_bytes([path, tmp_path / "none"]) == 1_000_000) is is_less


def test_without_a_driver_there_is_no_gpu_and_torch_is_not_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom picochat_trainer.preflight.machine import visible_gpus\n"
        f"assert visible_gpus([pathlib.Path({str(tmp_path / 'none')!r})]) == ()\n"
        "import picochat_trainer.stages.preflight\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_with_a_driver_torch_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory, major = "NVIDIA H200", 140 << 30, 9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    found = visible_gpus([tmp_path])
    assert [(gpu.name, gpu.memory_bytes, gpu.has_bf16) for gpu in found] == [
        ("NVIDIA H200", 140 << 30, True)
    ] * 2


def test_a_driver_without_a_device_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert visible_gpus([tmp_path]) == () == hardware.cuda_devices()


def test_optional_packages_are_named_where_they_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"tensorboard"}
    monkeypatch.setattr(machine, "find_spec", lambda name: object() if name in installed else None)
    assert machine_facts(tmp_path, 1).packages == ("tensorboard",)
    installed.clear()
    assert machine_facts(tmp_path, 1).packages == ()
