"""A loss that is not finite on one of two ranks, in one of two micro-batches, stops the update of both."""

import dataclasses
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from picochat_contract.manifest import StageJob
from picochat_trainer.context import StageContext
from picochat_trainer.training import distributed
from picochat_trainer.training.loop import Trainer
from picochat_trainer.training.prefetch import DeviceStep
from picochat_trainer.training.reader import Batching, WindowReader
from picochat_trainer.training.step import StepTensors
from picochat_trainer.training.tokens import ArrayTokens
from support.forks import run_ranks
from support.trainings import TOKENS, T, tiny_model, tiny_training
from torch import Tensor
from torch.distributed.tensor import DTensor

STEPS = 6
SPOILED = (0, 3)


def weights(trainer: Trainer) -> Tensor:
    """All of them, whole, in a row: collective."""
    values = trainer.model.state_dict().values()
    whole = [value.full_tensor() if isinstance(value, DTensor) else value for value in values]
    return torch.cat([value.detach().flatten() for value in whole])


def work(rank: int, folder: str, strategy: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    resources = {"distributed_strategy": strategy}
    job = StageJob.model_validate({"stage": "base", "config": {}, "resources": resources})
    context = StageContext(Path(folder) / "run", job, rank=rank, world_size=2)
    batching = Batching(
        sequence_len=T, device_batch_size=2, grad_accum_steps=2, rank=rank, world_size=2, seed=1
    )
    model = tiny_model()
    distributed.shard(model, "cpu", context.strategy)
    training = tiny_training(model, optimizer="muon", ema_decay=0.9, grad_accum_steps=2, max_steps=STEPS)
    training = dataclasses.replace(training, batches=WindowReader(ArrayTokens(TOKENS), batching))
    trainer = Trainer(context, training)
    before: list[Tensor] = []
    real = trainer.step.backward

    def spoiled(step: DeviceStep) -> StepTensors:
        before.append(weights(trainer))
        if rank == 1 and trainer.state.step in SPOILED:
            first, *rest = step.micro_batches
            step = dataclasses.replace(
                step, micro_batches=(dataclasses.replace(first, share=float("nan")), *rest)
            )
        return real(step)

    trainer.step.backward = spoiled  # type: ignore[method-assign]
    outcome = trainer.run()
    before.append(weights(trainer))
    torch.save((outcome.state.num_nonfinite_steps, torch.stack(before)), f"{folder}/{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a normal exit


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_both_ranks_skip_the_same_steps_and_go_on_alike(tmp_path: Path, strategy: str) -> None:
    run_ranks(work, (str(tmp_path), strategy), 2)
    (num_skipped, found), (other_num, other) = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert num_skipped == other_num == len(SPOILED)
    assert found.isfinite().all()
    assert torch.equal(found, other)
    unchanged = [step for step in range(STEPS) if torch.equal(found[step], found[step + 1])]
    assert unchanged == list(SPOILED)
