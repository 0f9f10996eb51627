from pathlib import Path

import pytest
import torch
from picochat_contract.configs import BaseConfig, Resources
from picochat_contract.errors import Code, ContractError
from picochat_trainer.cores import cpu_has_bf16
from picochat_trainer.training import hardware
from picochat_trainer.training.hardware import autocast_dtype, resolve_device, should_compile


@pytest.mark.parametrize(
    ("flags", "native"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16", True), ("amx_bf16 amx_tile", True), ("", False)],
)
def test_bf16_is_native_only_with_its_instructions(tmp_path: Path, flags: str, native: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    assert cpu_has_bf16(cpuinfo) is native


def test_a_machine_without_cpuinfo_has_no_bf16(tmp_path: Path) -> None:
    assert not cpu_has_bf16(tmp_path / "none")


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_follows_the_cpu_and_the_others_do_not(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: native)
    assert autocast_dtype("auto", "cpu") is (torch.bfloat16 if native else None)
    assert autocast_dtype("float32", "cpu") is None
    assert autocast_dtype("bf16", "cpu") is torch.bfloat16


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto", 0) == "cpu"
    with pytest.raises(ContractError, match="Use device: cpu") as caught:
        resolve_device("cuda", 0)
    assert caught.value.code == Code.DEVICE_UNAVAILABLE


def test_more_processes_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto", 1) == "cuda:1"
    with pytest.raises(ContractError, match="this machine has 2"):
        resolve_device("auto", 2)


def test_auto_compiles_only_what_repays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_cpp_compiler", lambda: True)
    config = BaseConfig()
    assert not should_compile(config, "cpu", None, flops=1e9, num_shapes=1)
    assert should_compile(config, "cpu", None, flops=1e15, num_shapes=1)
    assert should_compile(config, "cuda:0", torch.bfloat16, flops=1e9, num_shapes=1)
    assert not should_compile(
        config.model_copy(update={"compile": "off"}), "cuda:0", None, flops=1e15, num_shapes=1
    )
    assert should_compile(config.model_copy(update={"compile": "on"}), "cpu", None, flops=1, num_shapes=1)


def test_more_shapes_need_a_longer_training_to_repay_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_cpp_compiler", lambda: True)
    flops = next(
        f for f in (2.0**n for n in range(30, 60)) if should_compile(BaseConfig(), "cpu", None, f, 1)
    )
    assert not should_compile(BaseConfig(), "cpu", None, flops, 4)
    assert should_compile(BaseConfig(), "cpu", None, 4 * flops, 4)


def test_auto_does_not_compile_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_cpp_compiler", lambda: False)
    assert not should_compile(BaseConfig(), "cpu", None, flops=1e15, num_shapes=1)


def test_the_compiler_named_by_cxx_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not hardware.has_cpp_compiler()


def test_threads_are_those_of_the_job_or_a_fair_share() -> None:
    before = torch.get_num_threads()
    try:
        assert hardware.set_threads(Resources(num_threads=3, nproc_per_node=2)) == 3
        assert torch.get_num_threads() == 3
        assert hardware.set_threads(Resources(nproc_per_node=64)) == 1
    finally:
        torch.set_num_threads(before)
