"""`run_suite`: every check in order, each timed, and none able to end the others."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from picochat_contract.configs import AttentionBackend, Device, Precision, Resources
from picochat_contract.errors import Code, SpecError
from picochat_contract.scales import SCALES
from picochat_contract.spec import RunSpec, parse_mapping

from picochat_trainer.atomic import write_text
from picochat_trainer.sanity.attention import check_attention
from picochat_trainer.sanity.capacity import check_capacity
from picochat_trainer.sanity.check import (
    CheckResult,
    CheckStatus,
    Finding,
    SanityReport,
    failed,
    markdown,
    summary_of,
)
from picochat_trainer.sanity.loaders import check_rank_split, check_sharded_loader
from picochat_trainer.sanity.machine import check_disk, check_environment, environment, now
from picochat_trainer.sanity.numerics import (
    check_compile,
    check_init_loss,
    check_kv_cache,
    check_precision,
    check_stock_mapping,
)
from picochat_trainer.sanity.ranks import check_ddp, check_fsdp, is_for_fsdp
from picochat_trainer.sanity.resume import check_fingerprint_guard, check_resume_determinism
from picochat_trainer.sanity.setup import Setup
from picochat_trainer.training.hardware import autocast_dtype, describe, resolve_device, set_threads

REPORT: Final = "preh100_sanity.json"
REPORT_MD: Final = "preh100_sanity.md"
_WORK: Final = "work"


@dataclass(frozen=True, kw_only=True)
class Check:
    id: str
    run: Callable[[Setup], Finding]
    fix: str
    concerns: Callable[[RunSpec | None], bool] = lambda preset: True
    """Whether it is run for the preset of --capacity-scale, or None."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """As the command line gives them."""

    out_dir: Path
    device: Device = "auto"
    precision: Precision = "auto"
    matmul_precision: str | None = None
    attn_backend: AttentionBackend = "auto"
    include_compile: bool = False
    capacity_scale: str | None = None
    capacity_batch_size: int | None = None
    capacity_min_free_fraction: float = 0.10


CHECKS: Final = (
    Check(
        id="environment",
        run=check_environment,
        fix="set the clock; take a machine with GPUs of one kind, as many as the preset starts processes, or train with "
        "--nproc-per-node at what is there and base.grad_accum_steps raised by as much",
    ),
    Check(id="disk", run=check_disk, fix="free some space, or give an --out-dir on a larger file system"),
    Check(
        id="attention_backend",
        run=check_attention,
        fix="train with base.attn_backend set to one that agrees, and update torch or the driver",
    ),
    Check(
        id="modern_init_loss",
        run=check_init_loss,
        fix="do not train: the model's start is wrong on this machine",
    ),
    Check(
        id="precision_backward",
        run=check_precision,
        fix="train with base.precision: float32, and update torch",
    ),
    Check(
        id="kv_cache_equivalence",
        run=check_kv_cache,
        fix="training is not touched, but eval, samples and serving would be wrong; update torch",
    ),
    Check(
        id="hf_mapping",
        run=check_stock_mapping,
        fix="an export would compute something else; install the transformers version of constraints.txt",
    ),
    Check(id="torch_compile", run=check_compile, fix="train with base.compile: off, or update torch"),
    Check(
        id="sharded_loader",
        run=check_sharded_loader,
        fix="use base.dataset_mode: memory; check memory and disk for errors",
    ),
    Check(id="ddp_batcher_rank_split", run=check_rank_split, fix="train with one process"),
    Check(
        id="resume_fingerprint_guard",
        run=check_fingerprint_guard,
        fix="delete old resume checkpoints before training: nothing would keep them from being mixed up",
    ),
    Check(
        id="resume_loss_determinism",
        run=check_resume_determinism,
        fix="do not rely on resuming here: train without interruption, or in float32 with base.attn_backend: math",
    ),
    Check(
        id="ddp_dry_run",
        run=check_ddp,
        fix="read the log that the message names; check NCCL, the network interface and shared memory (/dev/shm)",
    ),
    Check(
        id="fsdp_dry_run",
        run=check_fsdp,
        fix="train with resources.distributed_strategy: ddp, or, where ddp_dry_run fails too, mend that first",
        concerns=is_for_fsdp,
    ),
    Check(
        id="scale_capacity",
        run=check_capacity,
        fix="of base or sft, whichever the message names: lower device_batch_size and raise grad_accum_steps by as much, or "
        "set gradient_checkpointing",
    ),
)


def run_suite(options: Options, say: Callable[[str], None] = lambda line: None) -> SanityReport:
    """Run every check that concerns the preset, write both reports to `out_dir`, return the report; bad options raise SpecError."""
    preset = preset_of(options.capacity_scale)
    device = resolve_device(options.device, 0)
    set_threads(Resources())
    options.out_dir.mkdir(parents=True, exist_ok=True)
    with _work_folder(options.out_dir) as folder, _matmul_precision(options.matmul_precision):
        setup = Setup(
            device=device,
            precision=options.precision,
            dtype=autocast_dtype(options.precision, device),
            attn_backend=options.attn_backend,
            include_compile=options.include_compile,
            preset=preset,
            capacity_batch_size=options.capacity_batch_size,
            min_free_fraction=options.capacity_min_free_fraction,
            folder=folder,
            num_gpus=torch.cuda.device_count() if device != "cpu" else 0,
        )
        results = tuple(_run(check, setup, say) for check in CHECKS if check.concerns(preset))
        report = SanityReport(
            created_at=now(),
            device=describe(device),
            options=_shown(options),
            summary=summary_of(results),
            environment=environment(setup),
            checks=results,
        )
    write_text(options.out_dir / REPORT, report.model_dump_json(indent=2) + "\n")
    write_text(options.out_dir / REPORT_MD, markdown(report))
    return report


def preset_of(scale: str | None) -> RunSpec | None:
    if scale is None:
        return None
    if scale not in SCALES:
        raise SpecError(
            Code.INVALID_VALUE,
            f"unknown --capacity-scale {scale!r}; known: {', '.join(SCALES)}",
            param="capacity_scale",
        )
    return parse_mapping({"scale": scale})


def _run(check: Check, setup: Setup, say: Callable[[str], None]) -> CheckResult:
    started = time.perf_counter()
    try:
        found = check.run(setup)
    except Exception as error:  # a check that breaks is a finding of its own, and the others go on
        found = failed(None, "", f"the check broke: {type(error).__name__}: {error}")
    seconds = time.perf_counter() - started
    say(f"{check.id:<26} {found.status.value:<8} {seconds:6.1f} s  {found.message}")
    return CheckResult(
        id=check.id,
        status=found.status,
        measured=found.measured,
        limit=found.limit,
        message=found.message,
        fix="" if found.status is CheckStatus.PASS else check.fix,
        seconds=seconds,
    )


@contextmanager
def _work_folder(out_dir: Path) -> Iterator[Path]:
    folder = out_dir / _WORK
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _matmul_precision(wanted: str | None) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    if wanted is not None:
        torch.set_float32_matmul_precision(wanted)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _shown(options: Options) -> dict[str, str | float | bool | None]:
    return {
        "device": options.device,
        "precision": options.precision,
        "matmul_precision": options.matmul_precision,
        "attn_backend": options.attn_backend,
        "include_compile": options.include_compile,
        "capacity_scale": options.capacity_scale,
        "capacity_batch_size": options.capacity_batch_size,
        "capacity_min_free_fraction": options.capacity_min_free_fraction,
    }
