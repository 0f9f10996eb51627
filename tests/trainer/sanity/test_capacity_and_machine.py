"""Memory, disk and facts: measured where that is possible, and said to be skipped where it is not."""

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import torch
from picochat_contract.model_size import num_parameters, vocab_size
from picochat_contract.plan_figures import sft_as_base
from picochat_contract.spec import parse_mapping
from picochat_trainer.sanity import capacity, machine
from picochat_trainer.sanity.check import CheckStatus
from picochat_trainer.sanity.setup import Setup
from picochat_trainer.training.optim import Optimizers
from picochat_trainer.training.spikes import SpikeGuard
from support.allocations import Allocations

Change = Callable[..., Setup]
SMOKE = parse_mapping({"scale": "smoke"})
PILOT = parse_mapping({"scale": "h100-pilot"})


def test_without_a_scale_capacity_is_skipped(setup: Setup) -> None:
    found = capacity.check_capacity(setup)
    assert (found.status, found.measured) == (CheckStatus.SKIPPED, None)
    assert "no --capacity-scale was given" in found.message


@pytest.mark.parametrize("scale", ["h100-pilot", "h100-100m", "h200-1b-ddp8"])
def test_a_preset_that_a_cpu_cannot_try_is_skipped_not_passed(changed: Change, scale: str) -> None:
    found = capacity.check_capacity(changed(preset=parse_mapping({"scale": scale})))
    assert (found.status, found.measured) == (CheckStatus.SKIPPED, None)
    assert found.message.startswith("skipped: needs CUDA: ")


def test_a_small_preset_is_measured_with_all_its_states(
    changed: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    snapshots: list[int] = []
    sound_step, sound_snapshot = Optimizers.step, SpikeGuard.snapshot
    monkeypatch.setattr(Optimizers, "step", lambda self: (steps.append(1), sound_step(self))[1])
    monkeypatch.setattr(SpikeGuard, "snapshot", lambda self: (snapshots.append(1), sound_snapshot(self))[1])
    preset = parse_mapping(
        {"scale": "smoke", "base": {"ema_decay": 0.9, "loss_spike_rollback": True, "optimizer": "muon"}}
    )
    found = capacity.check_capacity(changed(preset=preset))
    assert found.status is CheckStatus.PASS, found.message
    assert isinstance(found.measured, float) and 0.1 <= found.measured < 1
    assert len(steps) == 2 * capacity.STEPS  # of base and of SFT
    assert len(snapshots) == 1 + capacity.STEPS  # of base alone
    assert "base: 8 rows x 128 tokens with muon, EMA, rollback snapshot took" in found.message
    assert "SFT: 8 rows x 128 tokens with adamw took" in found.message


def test_more_rows_take_more_memory(changed: Change) -> None:
    taken = []
    for rows in (4, 64):
        setup = changed(preset=SMOKE, capacity_batch_size=rows)
        base = SMOKE.base_config.model_copy(update={"device_batch_size": rows})
        assert f"{rows} rows" in capacity.check_capacity(setup).message
        taken.append(capacity.measure(setup, base)[0])
    assert taken[1] > taken[0] + 10e6


@pytest.mark.parametrize("changes", [{"base": {"grad_accum_steps": 4}}, {"resources": {"nproc_per_node": 2}}])
def test_where_gradients_outlive_a_backward_pass_they_are_in_the_peak(
    changed: Change, changes: dict[str, dict[str, int]]
) -> None:
    """Accumulated, or in DDP's buckets, they lie beside all activations of the next forward pass."""
    base = {"grad_accum_steps": 1, "precision": "float32", **changes.get("base", {})}
    held = parse_mapping({"scale": "smoke", **changes, "base": base})
    dropped = parse_mapping({"scale": "smoke", "base": {"grad_accum_steps": 1, "precision": "float32"}})
    peaks = []
    for preset in (dropped, held):
        with Allocations() as seen:
            capacity.measure(changed(preset=preset), preset.base_config)
        peaks.append(seen.most)
    gradients = 4 * num_parameters(SMOKE.base.model, vocab_size(SMOKE.tokenizer))
    assert peaks[1] - peaks[0] == pytest.approx(gradients, rel=0.05)
    assert (
        "2 micro-batches, the second beside the gradients"
        in capacity.check_capacity(changed(preset=held)).message
    )
    assert "micro-batches" not in capacity.check_capacity(changed(preset=dropped)).message


def test_the_step_of_sft_has_its_own_rows_and_settings_and_the_model_of_base() -> None:
    preset = parse_mapping(
        {
            "scale": "h200-1b-ddp8",
            "base": {"optimizer": "muon"},
            "sft": {"device_batch_size": 6, "grad_accum_steps": 3, "ema_decay": 0.9},
        }
    )
    base, sft = preset.base_config, sft_as_base(preset.base_config, preset.sft)
    assert sft.model == base.model
    assert (base.optimizer, base.gradient_checkpointing, base.loss_spike_rollback) == ("muon", True, True)
    assert (sft.optimizer, sft.gradient_checkpointing, sft.loss_spike_rollback) == ("adamw", False, False)
    assert (sft.device_batch_size, sft.grad_accum_steps, sft.ema_decay) == (6, 3, 0.9)


def test_the_step_that_leaves_less_free_decides(changed: Change) -> None:
    small = capacity.check_capacity(changed(preset=SMOKE))
    large = capacity.check_capacity(
        changed(preset=parse_mapping({"scale": "smoke", "sft": {"device_batch_size": 128}}))
    )
    assert isinstance(small.measured, float) and isinstance(large.measured, float)
    assert large.measured < small.measured - 50e6 / capacity.memory_bytes()
    assert "SFT: 128 rows x 128 tokens" in large.message


def test_too_little_left_free_fails(changed: Change) -> None:
    found = capacity.check_capacity(changed(preset=SMOKE, min_free_fraction=1.0))
    assert found.status is CheckStatus.FAIL


def test_a_step_that_does_not_fit_fails_with_the_reason(
    changed: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.\nmore")

    monkeypatch.setattr(capacity, "measure", full)
    found = capacity.check_capacity(changed(preset=SMOKE))
    assert found.status is CheckStatus.FAIL
    assert found.message.startswith("smoke: base: 8 rows")
    assert found.message.endswith("does not fit: CUDA out of memory. Tried to allocate 8.00 GiB.")


@pytest.mark.parametrize(("free", "status"), [(1 << 40, CheckStatus.PASS), (1 << 20, CheckStatus.FAIL)])
@pytest.mark.parametrize("preset", [None, PILOT])
def test_a_disk_without_room_fails(
    changed: Change, monkeypatch: pytest.MonkeyPatch, preset: object, free: int, status: CheckStatus
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert machine.check_disk(changed(preset=preset)).status is status


def test_a_machine_as_it_should_be_passes(setup: Setup) -> None:
    found = machine.check_environment(setup)
    assert found.status is CheckStatus.PASS, found.message


def test_a_clock_that_was_never_set_fails(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "now", lambda: datetime(1970, 1, 1, tzinfo=UTC))
    found = machine.check_environment(setup)
    assert found.status is CheckStatus.FAIL
    assert "the clock says 1970-01-01" in found.message


def test_gpus_of_two_kinds_fail(changed: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ("NVIDIA H200", "NVIDIA A100")[index])
    found = machine.check_environment(changed(device="cuda:0", num_gpus=2))
    assert found.status is CheckStatus.FAIL
    assert "NVIDIA A100, NVIDIA H200" in found.message


def test_bf16_that_the_device_only_emulates_fails(changed: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: False)
    assert machine.check_environment(changed(precision="bf16")).status is CheckStatus.FAIL
    assert machine.check_environment(changed(precision="auto")).status is CheckStatus.PASS


@pytest.mark.parametrize(
    ("num_gpus", "status", "said"),
    [
        (0, CheckStatus.PASS, "h100-100m-ddp8 is for 8 GPUs"),
        (1, CheckStatus.FAIL, "starts 8 processes with a GPU each, and this machine has 1"),
        (7, CheckStatus.FAIL, "starts 8 processes with a GPU each, and this machine has 7"),
        (8, CheckStatus.PASS, "8 GPU(s): NVIDIA H200"),
    ],
)
def test_a_machine_with_some_gpus_but_too_few_for_the_preset_fails(
    changed: Change, monkeypatch: pytest.MonkeyPatch, num_gpus: int, status: CheckStatus, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    device = "cuda:0" if num_gpus else "cpu"
    preset = parse_mapping({"scale": "h100-100m-ddp8"})
    found = machine.check_environment(changed(device=device, num_gpus=num_gpus, preset=preset))
    assert found.status is status
    assert said in found.message


def test_one_gpu_is_enough_for_a_preset_of_one_process(
    changed: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    found = machine.check_environment(changed(device="cuda:0", num_gpus=1, preset=PILOT))
    assert found.status is CheckStatus.PASS, found.message


def test_the_driver_is_asked_for_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    row = "570.1, 700.00 W, 700.00 W, 1980 MHz, Enabled\n"
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=2 * row))
    assert machine.driver_facts()["power.limit"] == "700.00 W"

    def dead(*_: object, **__: object) -> None:
        raise machine.subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(machine.subprocess, "run", dead)
    assert machine.driver_facts() == {"nvidia-smi": "did not answer"}
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.driver_facts() == {}
