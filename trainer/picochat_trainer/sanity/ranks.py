"""A real start of two ranks by torchrun, with a checkpoint, against one process with the same global batch."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
from picochat_contract.configs import BaseConfig, Resources
from picochat_contract.events import EventType
from picochat_contract.manifest import StageJob
from picochat_contract.stages import StageName

from picochat_trainer.launch import start_stage
from picochat_trainer.sanity import sample_run
from picochat_trainer.sanity.check import Finding, failed, judged, skipped
from picochat_trainer.sanity.setup import Setup

RANKS: Final = 2
STEPS: Final = 4
TIMEOUT_SECONDS: Final = 300.0
LIMITS: Final[dict[torch.dtype | None, float]] = {None: 1e-4, torch.bfloat16: 2e-2}
"""Largest relative difference of losses: ranks sum gradients in another order."""


def check_ddp(setup: Setup) -> Finding:
    """Two ranks under torchrun learn what one process learns, and write a checkpoint."""
    limit = f"losses within {LIMITS[setup.dtype]:g} relative, at least one checkpoint"
    if setup.on_gpu and setup.num_gpus < RANKS:
        return skipped(f"NCCL needs {RANKS} GPUs, this machine has {setup.num_gpus}", limit)
    one, two = setup.folder / "one_process", setup.folder / "two_ranks"
    for run_dir in (one, two):
        sample_run.prepare(run_dir)
    settings = sample_run.config(setup, max_steps=STEPS, checkpoint_every=2, eval_every=STEPS)
    alone = sample_run.train(
        setup, one, settings.model_copy(update={"device_batch_size": RANKS * settings.device_batch_size})
    )
    problem = run_ranks(two, settings, sample_run.kind_of(setup))
    if problem is not None:
        return failed(None, limit, problem)
    together = sample_run.trained(two)
    checkpoints = num_checkpoints(two)
    pairs = zip(alone.train_losses, together.train_losses, strict=True)
    difference = max(abs(left - right) / left for left, right in pairs)
    return judged(
        difference <= LIMITS[setup.dtype] and checkpoints > 0,
        difference,
        limit,
        f"{RANKS} ranks over {'NCCL' if setup.on_gpu else 'gloo on the CPU'}, {STEPS} steps, {checkpoints} checkpoint(s)",
    )


def run_ranks(
    run_dir: Path, settings: BaseConfig, device: str, timeout_seconds: float = TIMEOUT_SECONDS
) -> str | None:
    """Run the base stage with two ranks to its end; what went wrong, or None."""
    threads = None if device == "cuda" else 1
    job = StageJob(
        stage=StageName.BASE,
        config=settings.model_dump(mode="json"),
        resources=Resources.model_validate(
            {"device": device, "nproc_per_node": RANKS, "num_threads": threads}
        ),
    )
    process = start_stage(run_dir, job)
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        return (
            f"{RANKS} ranks did not end within {timeout_seconds:g} s and were killed; {_last_words(run_dir)}"
        )
    return None if code == 0 else f"{RANKS} ranks ended with exit code {code}; {_last_words(run_dir)}"


def num_checkpoints(run_dir: Path) -> int:
    """Resume checkpoints that the stage announced."""
    lines = (
        (run_dir / "stages" / StageName.BASE.value / "events.jsonl").read_text(encoding="utf-8").splitlines()
    )
    return sum(json.loads(line)["type"] == EventType.CHECKPOINT.value for line in lines)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own; ranks die with it
    process.wait()


def _last_words(run_dir: Path) -> str:
    stage_dir = run_dir / "stages" / StageName.BASE.value
    try:
        error = json.loads((stage_dir / "error.json").read_text(encoding="utf-8"))
        return f"{error['code']}: {error['message']}"
    except (OSError, ValueError, KeyError):
        pass
    try:
        lines = (stage_dir / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"its log ends with: {lines[-1]}" if lines else "it has no log"
