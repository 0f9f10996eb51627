"""Real starts of two ranks by torchrun, DDP and FSDP2, with checkpoints, against one process with the same global batch."""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
from picochat_contract.configs import BaseConfig, DistributedStrategy, Resources
from picochat_contract.events import CheckpointFiles, EventType
from picochat_contract.manifest import StageJob
from picochat_contract.spec import RunSpec
from picochat_contract.stages import StageName

from picochat_trainer.launch import start_stage
from picochat_trainer.sanity import sample_run
from picochat_trainer.sanity.check import Finding, failed, judged, skipped
from picochat_trainer.sanity.setup import Setup
from picochat_trainer.training.sharded import SHARDS

RANKS: Final = 2
STEPS: Final = 4
TIMEOUT_SECONDS: Final = 300.0
LIMITS: Final[dict[torch.dtype | None, float]] = {None: 1e-4, torch.bfloat16: 2e-2}
"""Largest relative difference of losses: ranks sum gradients in another order."""


def check_ddp(setup: Setup) -> Finding:
    """Two ranks under torchrun learn what one process learns, and write checkpoints."""
    return _check(setup, "ddp")


def check_fsdp(setup: Setup) -> Finding:
    """The same where each rank has half of the weights, and writes that half into checkpoints."""
    return _check(setup, "fsdp")


def is_for_fsdp(preset: RunSpec | None) -> bool:
    """False for a preset that trains with ddp: what does not concern it is not to stop it."""
    return preset is None or preset.resources.distributed_strategy == "fsdp"


def _check(setup: Setup, strategy: DistributedStrategy) -> Finding:
    num_shards = RANKS if strategy == "fsdp" else 0
    kept = f"of {num_shards} shards each" if num_shards else "that are whole"
    limit = f"losses within {LIMITS[setup.dtype]:g} relative, checkpoints {kept}"
    if setup.on_gpu and setup.num_gpus < RANKS:
        return skipped(f"NCCL needs {RANKS} GPUs, this machine has {setup.num_gpus}", limit)
    one, two = setup.folder / f"one_beside_{strategy}", setup.folder / f"two_by_{strategy}"
    for run_dir in (one, two):
        sample_run.prepare(run_dir)
    settings = sample_run.config(setup, max_steps=STEPS, checkpoint_every=2, eval_every=STEPS)
    alone = sample_run.train(
        setup, one, settings.model_copy(update={"device_batch_size": RANKS * settings.device_batch_size})
    )
    problem = run_ranks(two, settings, sample_run.kind_of(setup), strategy)
    if problem is not None:
        return failed(None, limit, problem)
    together = sample_run.trained(two)
    shards = checkpoint_shards(two)
    pairs = zip(alone.train_losses, together.train_losses, strict=True)
    difference = max(abs(left - right) / left for left, right in pairs)
    return judged(
        difference <= LIMITS[setup.dtype] and set(shards) == {num_shards},
        difference,
        limit,
        f"{RANKS} ranks by {strategy} over {'NCCL' if setup.on_gpu else 'gloo on the CPU'}, {STEPS} steps, checkpoints with "
        f"{', '.join(map(str, shards)) or 'no'} shards",
    )


def run_ranks(
    run_dir: Path,
    settings: BaseConfig,
    device: str,
    strategy: DistributedStrategy,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str | None:
    """Run the base stage with two ranks to its end; what went wrong, or None."""
    threads = None if device == "cuda" else 1
    job = StageJob(
        stage=StageName.BASE,
        config=settings.model_dump(mode="json"),
        resources=Resources.model_validate(
            {
                "device": device,
                "nproc_per_node": RANKS,
                "num_threads": threads,
                "distributed_strategy": strategy,
            }
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


def checkpoint_shards(run_dir: Path) -> tuple[int, ...]:
    """Files of shards in each resume checkpoint that the stage announced; 0 in one of whole tensors."""
    path = run_dir / "stages" / StageName.BASE.value / "events.jsonl"
    events = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    found = (
        CheckpointFiles.model_validate(e["data"]) for e in events if e["type"] == EventType.CHECKPOINT.value
    )
    return tuple(sum(f"/{SHARDS}/" in file.path for file in checkpoint.files) for checkpoint in found)


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
