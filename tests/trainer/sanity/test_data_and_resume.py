"""Loaders, ranks and resume: each check fails where rows repeat, shards shift, or a checkpoint loses something."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_contract.configs import BaseConfig, Precision
from picochat_trainer.sanity import loaders, ranks, resume, sample_run
from picochat_trainer.sanity.check import CheckStatus
from picochat_trainer.sanity.setup import SEED, Setup
from picochat_trainer.training import resume as training_resume
from picochat_trainer.training.packing import PackedRows
from picochat_trainer.training.reader import RowReader
from picochat_trainer.training.tokens import ArrayTokens
from support import forks


def test_sound_loaders_and_ranks_pass(setup: Setup) -> None:
    found = loaders.check_sharded_loader(setup)
    assert found.status is CheckStatus.PASS, found.message
    assert isinstance(found.measured, float) and 0 <= found.measured < loaders.MAX_DROPPED
    assert loaders.check_rank_split(setup).status is CheckStatus.PASS


def test_rows_that_are_shifted_against_memory_fail(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = ArrayTokens.windows
    monkeypatch.setattr(ArrayTokens, "windows", lambda self, starts, length: sound(self, starts + 1, length))
    assert loaders.check_sharded_loader(setup).status is CheckStatus.FAIL


def test_a_seek_that_goes_nowhere_fails(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowReader, "seek", lambda self, position: None)
    assert loaders.check_sharded_loader(setup).status is CheckStatus.FAIL


def test_packing_that_drops_too_much_fails(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedRows, "used_tokens", property(lambda self: int(0.97 * self.num_tokens)))
    found = loaders.check_sharded_loader(setup)
    assert (found.status, found.measured) == (CheckStatus.FAIL, pytest.approx(0.03, abs=1e-3))


def test_ranks_that_read_the_same_rows_fail(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = RowReader.__init__

    def all_are_rank_0(self: RowReader, batching: Any) -> None:
        sound(self, replace(batching, rank=0))

    monkeypatch.setattr(RowReader, "__init__", all_are_rank_0)
    found = loaders.check_rank_split(setup)
    assert found.status is CheckStatus.FAIL
    assert "in common" in found.message


def test_ranks_in_another_order_than_one_process_fail(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = RowReader.next_step

    def backwards(self: RowReader) -> Any:
        batch = sound(self)
        if self._batching.world_size == 1:
            return batch
        return replace(batch, micro_batches=tuple((x.flip(0), y.flip(0)) for x, y in batch.micro_batches))

    monkeypatch.setattr(RowReader, "next_step", backwards)
    assert loaders.check_rank_split(setup).status is CheckStatus.FAIL


def test_a_sound_guard_passes_and_one_that_lets_all_go_on_fails(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resume.check_fingerprint_guard(setup)
    assert found.status is CheckStatus.PASS, found.message
    monkeypatch.setattr(training_resume, "refuse_other_fingerprint", lambda *_: None)
    assert resume.check_fingerprint_guard(setup).status is CheckStatus.FAIL


def test_a_resume_that_keeps_everything_passes(setup: Setup) -> None:
    found = resume.check_resume_determinism(setup)
    assert (found.status, found.measured) == (CheckStatus.PASS, 0.0), found.message


@pytest.mark.parametrize("lost", ["random states", "reader position", "optimizer"])
def test_a_resume_that_loses_something_fails(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    if lost == "random states":
        monkeypatch.setattr(training_resume, "_set_rng", lambda *_: None)
    elif lost == "reader position":
        monkeypatch.setattr(RowReader, "seek", lambda self, position: None)
    else:
        monkeypatch.setattr(training_resume, "load_optimizer_tensors", lambda *_: None)
    assert resume.check_resume_determinism(setup).status is CheckStatus.FAIL


CHECKS = {"ddp": ranks.check_ddp, "fsdp": ranks.check_fsdp}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", CHECKS)
def test_two_real_ranks_pass(setup: Setup, strategy: str) -> None:
    found = CHECKS[strategy](setup)
    assert found.status is CheckStatus.PASS, found.message
    assert "gloo on the CPU" in found.message


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs two CUDA devices for two ranks")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("strategy", CHECKS)
def test_two_real_ranks_on_gpus_pass(setup: Setup, strategy: str, precision: Precision) -> None:
    dtype = torch.bfloat16 if precision == "bf16" else None
    gpus = replace(setup, device="cuda:0", num_gpus=2, precision=precision, dtype=dtype)
    found = CHECKS[strategy](gpus)
    assert found.status is CheckStatus.PASS, found.message
    assert "NCCL" in found.message


@pytest.fixture
def in_one_process(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Stands for torchrun: one process with the rows of both ranks, whose config may be another."""

    def stand_in(checkpoint_shards: tuple[int, ...] | None = None, **changes: Any) -> None:
        results: dict[Path, sample_run.Trained] = {}
        shards: dict[Path, tuple[int, ...]] = {}

        def run(run_dir: Path, settings: BaseConfig, device: str, strategy: str) -> None:
            both = {"device_batch_size": 2 * settings.device_batch_size, **changes}
            results[run_dir] = sample_run.train(setup, run_dir, settings.model_copy(update=both))
            sound = (2, 2) if strategy == "fsdp" else (0, 0)
            shards[run_dir] = sound if checkpoint_shards is None else checkpoint_shards

        monkeypatch.setattr(ranks, "run_ranks", run)
        monkeypatch.setattr(sample_run, "trained", lambda run_dir: results[run_dir])
        monkeypatch.setattr(ranks, "checkpoint_shards", lambda run_dir: shards[run_dir])

    return stand_in


@pytest.mark.parametrize("strategy", CHECKS)
@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, CheckStatus.PASS),
        ({"seed": SEED + 1}, CheckStatus.FAIL),
        ({"checkpoint_shards": ()}, CheckStatus.FAIL),
        ({"checkpoint_shards": (2, 0)}, CheckStatus.FAIL),
    ],
)
def test_ranks_that_learn_something_else_or_do_not_keep_their_parts_fail(
    setup: Setup,
    in_one_process: Callable[..., None],
    values: dict[str, Any],
    status: CheckStatus,
    strategy: str,
) -> None:
    in_one_process(**values)
    assert CHECKS[strategy](setup).status is status


def test_a_check_of_fsdp_in_which_nothing_is_shared_out_fails(
    setup: Setup, in_one_process: Callable[..., None]
) -> None:
    in_one_process(checkpoint_shards=(0, 0))
    assert ranks.check_ddp(setup).status is CheckStatus.PASS
    assert ranks.check_fsdp(setup).status is CheckStatus.FAIL


def test_ranks_that_end_badly_fail_with_their_error(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "start_stage", forks.start_stage)
    run_dir = setup.folder / "bad"
    sample_run.prepare(run_dir)
    settings = sample_run.config(setup).model_copy(update={"max_steps": -1})
    problem = ranks.run_ranks(run_dir, settings, "cpu", "fsdp")
    assert problem is not None and "ended with exit code 2; invalid_value: max_steps" in problem


def test_ranks_that_hang_are_killed(setup: Setup) -> None:
    run_dir = setup.folder / "hangs"
    sample_run.prepare(run_dir)
    settings = sample_run.config(setup, max_steps=1_000_000)
    problem = ranks.run_ranks(run_dir, settings, "cpu", "ddp", timeout_seconds=0.2)
    assert problem is not None and "did not end within 0.2 s" in problem


@pytest.mark.parametrize("strategy", CHECKS)
def test_one_gpu_skips_the_ranks_with_the_reason(setup: Setup, strategy: str) -> None:
    found = CHECKS[strategy](replace(setup, device="cuda:0", num_gpus=1))
    assert found.status is CheckStatus.SKIPPED
    assert "needs 2 GPUs, this machine has 1" in found.message


def test_the_random_state_of_the_process_is_left_as_it_was(setup: Setup) -> None:
    run_dir = setup.folder / "run"
    sample_run.prepare(run_dir)
    torch.manual_seed(5)
    sample_run.train(setup, run_dir, sample_run.config(setup, max_steps=1))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
