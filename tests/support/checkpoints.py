"""A tiny training with a checkpointer, without a stage or a loop around it, for one process or several ranks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.manifest import StageJob
from picochat_contract.stages import StageName
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.checkpoint import LossPoint, TrainingState
from picochat_trainer.training.checkpointer import Checkpointer
from picochat_trainer.training.compiled import LossModule
from picochat_trainer.training.ema import Ema
from picochat_trainer.training.optim import Optimizers, make_optimizer, optimizer_tensors
from picochat_trainer.training.resume import Training
from picochat_trainer.training.validation import Validation
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

VOCAB = 31
# An odd vocabulary and 3 heads of 4: ranks get unequal parts, and the norm over one head of 4 rows is shared too.
MODEL = ModelConfig(n_layer=1, n_head=3, n_embd=12, sequence_len=8, mlp_hidden=21)
RESUME, BEST = "base/resume_checkpoint", "base/best_checkpoint"


@dataclass
class Batches:
    """Says where it is, and gives nothing: the steps here make their own batches."""

    position: dict[str, int] = field(default_factory=dict)

    def seek(self, position: dict[str, int]) -> None:
        self.position = position

    def shapes(self) -> list[tuple[int, int]]:
        return []

    def next_step(self) -> Any:
        raise AssertionError("the steps here make their own batches")


@dataclass
class Small:
    """One training, and what is needed to take steps of it."""

    context: StageContext
    training: Training
    optimizer: Optimizers
    ema: Ema
    checkpointer: Checkpointer
    module: nn.Module

    @property
    def model(self) -> GPT:
        return self.training.model

    def step(self, number: int, rank: int = 0, num_ranks: int = 1) -> None:
        """Train on this rank's share of the batch of step `number`."""
        tokens = torch.randint(VOCAB, (4, 9), generator=torch.Generator().manual_seed(number))[
            rank::num_ranks
        ]
        self.module(tokens[:, :-1], tokens[:, 1:]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def whole(self) -> dict[str, Tensor]:
        """Weights, optimizer state and mean, whole on every rank: collective."""
        groups = {
            "weights": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
            "ema": self.ema.tensors,
        }
        return {
            f"{group}.{name}": (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone()
            for group, tensors in groups.items()
            for name, t in tensors.items()
        }


def small(
    run_dir: Path, *, rank: int = 0, num_ranks: int = 1, strategy: str = "ddp", **changes: Any
) -> Small:
    """A training that begins, in `run_dir`; `changes` are to its fingerprint."""
    job = StageJob.model_validate(
        {"stage": StageName.BASE, "config": {}, "resources": {"distributed_strategy": strategy}}
    )
    context = StageContext(run_dir, job, rank=rank, world_size=num_ranks)
    model = GPT(MODEL, VOCAB)
    model.init_weights(1)
    distributed.shard(model, "cpu", context.strategy)
    config = BaseConfig(learning_rate=0.01, optimizer="muon", ema_decay=0.9, precision="float32")
    optimizer = make_optimizer(model, config, num_ranks=num_ranks)
    training = Training(
        model=model,
        batches=Batches(),
        validator=lambda model: Validation(loss=1.0),
        config=config,
        fingerprint={"batch": {"rows_per_step": 4}, "rounding": {"num_ranks": num_ranks}, **changes},
        best=BEST,
        resume=RESUME,
    )
    ema = Ema(model, config.ema_decay)
    checkpointer = Checkpointer(context, training, optimizer, ema)
    module = distributed.wrap(LossModule(model), "cpu", context.strategy)
    return Small(context, training, optimizer, ema, checkpointer, module)


def state(step: int, fingerprint: dict[str, Any], best_step: int | None = None) -> TrainingState:
    return TrainingState(
        step=step,
        fingerprint=fingerprint,
        position={"row": step},
        losses=tuple(LossPoint(step=s, val_loss=1.0) for s in {best_step, step} - {None} if s is not None),
        best_step=best_step,
        best_val_loss=None if best_step is None else 1.0,
        evals_without_improvement=0,
        num_nonfinite_steps=0,
        nonfinite_in_a_row=0,
        tokens_seen=step,
        elapsed_seconds=0.0,
        stop_reason=None,
    )
