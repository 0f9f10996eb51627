"""Saving and taking up a training at an exact step: weights, optimizer, random states, reader position."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from picochat_contract.configs import OptimConfig
from picochat_contract.events import CheckpointFile, CheckpointFiles
from torch import Tensor

from picochat_trainer.atomic import file_sha256, remove_leftovers
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.checkpoint import (
    TrainingState,
    Weights,
    load_resume,
    refuse_other_fingerprint,
    restore_best,
    save_resume,
)
from picochat_trainer.training.optim import Optimizers, below, load_optimizer_tensors, optimizer_tensors
from picochat_trainer.training.reader import BatchSource
from picochat_trainer.training.validation import Validator

BEST_KIND = "best_validation"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop is given."""

    model: GPT
    batches: BatchSource
    validator: Validator
    config: OptimConfig
    fingerprint: dict[str, Any]
    best: str
    """Run-folder name of the folder for the best-validation weights."""
    resume: str
    """Run-folder name of the folder for resume checkpoints."""


def restore(
    context: StageContext, training: Training, optimizer: Optimizers
) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """Take up the training at its resume checkpoint: its state and `snapshot` tensors. None where there is none."""
    resume_dir, best_dir = context.scratch(training.resume), context.path(training.best)
    if context.is_main:
        remove_leftovers(resume_dir)
        remove_leftovers(best_dir)
    resume = load_resume(resume_dir)
    if resume is None:
        return None
    refuse_other_fingerprint(resume.state.fingerprint, training.fingerprint, resume.directory)
    if resume.fallback:
        context.events.log("warning", resume.fallback)
        if context.is_main:
            # Else the next save would push the good one out for it, and a kill in between leave only this one.
            shutil.rmtree(resume_dir, ignore_errors=True)
    training.model.load_state_dict(resume.weights.tensors)
    load_optimizer_tensors(optimizer, training.model, below("optimizer.", resume.tensors))
    training.batches.seek(resume.state.position)
    states = below(f"rng.{context.rank}.", resume.tensors)
    if states:
        _set_rng(states)
    else:  # more ranks than before: a stream of its own for dropout, not the one it would have begun with
        torch.manual_seed(training.config.seed + context.rank + (resume.state.step << 16))
    if context.is_main:
        restore_best(resume, best_dir, BEST_KIND)
    context.events.log("info", f"resumed from step {resume.state.step} of {resume.directory.name}")
    return resume.state, below("snapshot.", resume.tensors)


def save_resume_point(
    context: StageContext,
    training: Training,
    optimizer: Optimizers,
    state: TrainingState,
    snapshot: Mapping[str, Tensor],
) -> None:
    """Write the resume checkpoint and announce it; all ranks call this. `snapshot` is the spike guard's, if any."""
    tensors = {f"optimizer.{k}": v for k, v in optimizer_tensors(optimizer, training.model).items()}
    tensors |= {f"snapshot.{name}": value for name, value in snapshot.items()}
    ranks = distributed.gather_tensors(_rng(), context.device)
    tensors |= {f"rng.{rank}.{name}": t for rank, states in enumerate(ranks) for name, t in states.items()}
    if not context.is_main:
        return
    directory = context.path(training.resume)
    best = context.path(training.best) if state.best_step is not None else None
    save_resume(directory, weights_of(training.model), state, tensors, best)
    files = tuple(
        CheckpointFile(
            path=f"{training.resume}/{path.name}", sha256=file_sha256(path), size_bytes=path.stat().st_size
        )
        for path in sorted(directory.iterdir())
    )
    context.events.checkpoint(CheckpointFiles(directory=training.resume, step=state.step, files=files))


def weights_of(model: GPT) -> Weights:
    return Weights(config=model.config, vocab_size=model.vocab_size, tensors=model.state_dict())


def _rng() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_rng(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
