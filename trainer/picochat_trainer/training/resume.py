"""Taking up a training at an exact step: weights, optimizer, mean of the weights, random states, reader position."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from picochat_contract.configs import OptimConfig
from torch import Tensor

from picochat_trainer.atomic import remove_leftovers
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training.checkpoint import (
    ResumePoint,
    TrainingState,
    Weights,
    load_resume,
    restore_best,
)
from picochat_trainer.training.exchange import Exchange
from picochat_trainer.training.fingerprint import refuse_other_fingerprint, rounding_differences
from picochat_trainer.training.optim import Optimizers, below, load_optimizer_tensors
from picochat_trainer.training.reader import BatchSource
from picochat_trainer.training.sharded import placement_of
from picochat_trainer.training.validation import Validator

BEST_KIND = "best_validation"


class MeanWeights(Protocol):
    """The running mean of the weights, `training.ema.Ema`: `mean.<parameter>` and what else it needs."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...

    def load(self, tensors: dict[str, Tensor]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop is given."""

    model: GPT
    """On the device, sharded where the strategy says so: what `first_weights.build_model` gives."""
    batches: BatchSource
    validator: Validator
    config: OptimConfig
    fingerprint: dict[str, Any]
    best: str
    """Run-folder name of the folder for the best-validation weights."""
    resume: str
    """Run-folder name of the folder for resume checkpoints."""


def restore(
    context: StageContext,
    training: Training,
    optimizer: Optimizers,
    ema: MeanWeights | None,
    ranks: Exchange,
) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """Take up the training at its resume checkpoint: its state and `snapshot` tensors. None where there is none."""
    resume_dir, best_dir = context.scratch(training.resume), context.path(training.best)
    if context.is_main:
        remove_leftovers(resume_dir)
        remove_leftovers(best_dir)
    resume = load_resume(resume_dir, placement_of(training.model), ranks)
    if resume is None:
        return None
    refuse_other_fingerprint(resume.state.fingerprint, training.fingerprint, resume.directory)
    if resume.fallback:
        context.events.log("warning", resume.fallback)
        if context.is_main:
            # Else the next save would push the good one out for it, and a kill in between leave only this one.
            shutil.rmtree(resume_dir, ignore_errors=True)
    _put_back(training, optimizer, ema, resume)
    _set_rng(context.rank, training.config.seed, resume)
    if context.is_main:
        restore_best(resume, best_dir, BEST_KIND)
    if changed := rounding_differences(resume.state.fingerprint, training.fingerprint):
        dropout = ", and dropout may draw otherwise" if training.model.config.dropout else ""
        order = (
            ", and batches may come in another order" if any(d.startswith("numpy:") for d in changed) else ""
        )
        message = (
            f"resumed in another way of computing, last bits may differ{dropout}{order}: {'; '.join(changed)}"
        )
        context.events.log("warning", message)
    context.events.log("info", f"resumed from step {resume.state.step} of {resume.directory.name}")
    # From here on it is computed as this job says; the next resume is compared with that.
    state = resume.state.model_copy(update={"fingerprint": training.fingerprint})
    return state, below("snapshot.", resume.tensors)


def weights_of(model: GPT) -> Weights:
    return Weights(config=model.config, vocab_size=model.vocab_size, tensors=model.state_dict())


def rng_states() -> dict[str, Tensor]:
    """The random states of this process that training draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _put_back(
    training: Training, optimizer: Optimizers, ema: MeanWeights | None, resume: ResumePoint
) -> None:
    training.model.load_state_dict(resume.weights.tensors)
    load_optimizer_tensors(optimizer, training.model, below("optimizer.", resume.tensors))
    if ema is not None:
        ema.load(below("ema.", resume.tensors))
    training.batches.seek(resume.state.position)


def _set_rng(rank: int, seed: int, resume: ResumePoint) -> None:
    states = below(f"rng.{rank}.", resume.tensors)
    if (
        not states
    ):  # more ranks than before: a stream of its own for dropout, not the one it would have begun with
        torch.manual_seed(seed + rank + (resume.state.step << 16))
        return
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
