"""A checkpoint takes its place only when all of it is on the disk, as a power cut would leave it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_trainer.training.checkpoint import LossPoint
from picochat_trainer.training.exchange import ALONE
from picochat_trainer.training.resume import weights_of
from picochat_trainer.training.resume_writer import ResumeJob, write_resume
from picochat_trainer.training.staging import Staging
from picochat_trainer.training.tensor_files import write_tensors
from support.checkpoints import BEST, RESUME, Small, small, state
from support.syncs import Syncs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads synced files again by /proc/self/fd")
FINGERPRINT: dict[str, Any] = {"batch": {"rows_per_step": 4}, "rounding": {"num_ranks": 1}}


def save_best(made: Small, step: int) -> str:
    made.checkpointer.save_best(LossPoint(step=step, val_loss=1.0))
    return BEST


def save_kept(made: Small, step: int) -> str:
    made.checkpointer.save_kept(step, {})
    return f"base/kept/step-{step:06d}"


def save_resume(made: Small, step: int) -> str:
    made.checkpointer.save(state(step, FINGERPRINT, best_step=1), {})
    return RESUME


def save_shards(made: Small, step: int) -> str:
    """As a rank writes that shares its weights out; here it has all of them."""
    weights = {f"weights.{name}": tensor for name, tensor in made.model.state_dict().items()}
    job = ResumeJob(
        name=RESUME,
        directory=made.context.path(RESUME),
        best=None,
        weights=weights_of(made.model),
        state=state(step, FINGERPRINT),
        staged=Staging().copy(weights),
        offsets={name: [0] * tensor.dim() for name, tensor in weights.items()},
        rng={},
        token="1",
    )
    write_resume(job, ALONE)
    return RESUME


@pytest.mark.parametrize("save", [save_best, save_kept, save_resume, save_shards])
def test_all_of_a_checkpoint_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Small, int], str]
) -> None:
    syncs = Syncs(monkeypatch)
    made = small(tmp_path / "run")
    save_best(made, 1)
    made.checkpointer.wait()
    for step in (2, 3):
        made.step(step)
        syncs.renames.clear()
        place = made.context.path(save(made, step))
        made.checkpointer.wait()
        temporary, name, torn = syncs.renames[-1]
        assert temporary.startswith(f".{place.name}.tmp-") and name == place.name
        assert torn == [], "on the disk before it is published"
        assert [names[:2] for names in syncs.renames[:-1]] in ([], [(name, f"{name}.previous")])
        assert syncs.unsafe(place) == [] and {"config.json", "metadata.json"} <= set(os.listdir(place))
        assert syncs.is_safe(place.parent), "so are the renames, once it is said to be written"


def test_a_shard_is_on_the_disk_when_its_digest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rank that completes the checkpoint may be on another machine, whose syncs do not reach it."""
    syncs = Syncs(monkeypatch)
    write_tensors(tmp_path / "shard.safetensors", {"a": torch.ones(3)}, {})
    assert syncs.is_safe(tmp_path / "shard.safetensors")
