"""Writes a resume checkpoint from copies of its tensors, on all ranks, beside the training.

Whole weights are written by the main rank. Shared ones are written by all, into one temporary folder, which the main
rank completes and swaps in once every part is there and synced. All ranks learn what became of it, so that none goes
on where another stops.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from picochat_contract.errors import Code, ContractError
from picochat_contract.events import CheckpointFile, CheckpointFiles
from torch import Tensor

from picochat_trainer.atomic import begin_folder, put_in_place, temporary_of
from picochat_trainer.training.checkpoint import (
    SHARDED_WEIGHTS,
    TrainingState,
    Weights,
    complete_resume,
    save_resume,
    written_files,
)
from picochat_trainer.training.exchange import Exchange
from picochat_trainer.training.optim import below
from picochat_trainer.training.sharded import write_shard
from picochat_trainer.training.staging import Staged
from picochat_trainer.training.tensor_files import size_of

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ResumeJob:
    """A resume checkpoint that is to be written: what this rank has of it."""

    name: str
    """Of the checkpoint's folder in the run folder."""
    directory: Path
    best: Path | None
    """Folder of the best weights, once there are any."""
    weights: Weights
    """How to build the model; the tensors that count are the copies."""
    state: TrainingState
    staged: Staged
    """Copies of the weights and of all other tensors, by their names in shards; a rank that writes none has none."""
    offsets: dict[str, list[int]] | None
    """Where this rank's parts begin in the whole tensors; None where no weights are shared out."""
    rng: dict[str, Tensor]
    """This rank's random states."""
    token: str
    """The same on all ranks, for the name of the folder while it is being written."""


def write_resume(
    job: ResumeJob, ranks: Exchange, problem: ContractError | None = None
) -> CheckpointFiles | None:
    """Write and swap in; the files to announce on the main rank. Raises `checkpoint_not_written` on all ranks.

    `problem` of the main rank is raised in place of writing.
    """
    tensors = job.staged.tensors()
    parts = None if job.offsets is None else _write_parts(job, job.offsets, tensors, ranks)
    rng = {f"rng.{r}.{k}": t for r, states in enumerate(ranks.gather(job.rng)) for k, t in states.items()}
    outcome: CheckpointFiles | ContractError | None = None
    if isinstance(parts, ContractError):
        outcome = parts
    elif ranks.rank == 0:
        outcome = problem or attempt(
            partial(_finish, job, tensors | rng, parts), job.directory, size_of(tensors)
        )
    if ranks.rank == 0:
        shutil.rmtree(temporary_of(job.directory, job.token), ignore_errors=True)  # parts of what went wrong
    outcome = ranks.from_main(outcome)
    if isinstance(outcome, ContractError):
        raise outcome
    return outcome


def attempt(work: Callable[[], T], directory: Path, size_bytes: int) -> T | ContractError:
    """What `work` returns, or what to tell where the system does not let it write `size_bytes` for `directory`."""
    try:
        return work()
    except OSError as error:
        return ContractError(
            Code.CHECKPOINT_NOT_WRITTEN,
            f"{directory} could not be written: {error.strerror or error} ({error.filename or directory}). It needs "
            f"{size_bytes:,} bytes, and as much again for the one before it; {_free(directory):,} bytes are free there. "
            "The checkpoint before it is whole: make room, or let this user write there, and start the stage again",
            param=str(directory),
        )


def _write_parts(
    job: ResumeJob, offsets: dict[str, list[int]], tensors: dict[str, Tensor], ranks: Exchange
) -> dict[str, str] | ContractError:
    """Write this rank's parts; the digests of the files of all ranks, or the first problem of any."""
    mine = {name: tensor for name, tensor in tensors.items() if name in offsets}

    def write() -> tuple[str, str]:
        folder = temporary_of(job.directory, job.token)
        begin_folder(folder)
        return write_shard(folder, mine, offsets, ranks.rank, ranks.world_size)

    written = ranks.gather(attempt(write, job.directory, size_of(mine)))
    problem = next((shard for shard in written if isinstance(shard, ContractError)), None)
    return problem or dict(shard for shard in written if not isinstance(shard, ContractError))


def _finish(job: ResumeJob, tensors: dict[str, Tensor], parts: dict[str, str] | None) -> CheckpointFiles:
    """On the main rank: write what is not in parts, and swap in."""
    if parts is None:
        weights = Weights(
            config=job.weights.config,
            vocab_size=job.weights.vocab_size,
            tensors=below(SHARDED_WEIGHTS, tensors),
        )
        rest = {name: t for name, t in tensors.items() if not name.startswith(SHARDED_WEIGHTS)}
        save_resume(job.directory, weights, job.state, rest, job.best)
    else:
        assert job.offsets is not None
        folder = temporary_of(job.directory, job.token)
        for name in parts:
            (folder / name).stat()  # what another machine has written must be seen here
        rest = {name: tensor for name, tensor in tensors.items() if name not in job.offsets}
        complete_resume(folder, job.weights, job.state, rest, job.best, parts)
        put_in_place(folder, job.directory)
    return CheckpointFiles(
        directory=job.name,
        step=job.state.step,
        files=tuple(
            CheckpointFile(
                path=f"{job.name}/{name}", sha256=digest, size_bytes=(job.directory / name).stat().st_size
            )
            for name, digest in sorted(written_files(job.directory).items())
        ),
    )


def _free(directory: Path) -> int:
    """Bytes free on the disk of `directory`, which need not be there."""
    return shutil.disk_usage(next(folder for folder in directory.parents if folder.is_dir())).free
