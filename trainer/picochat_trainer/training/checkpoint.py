"""Checkpoint folders: safetensors and JSON only, so that loading one never runs code from it.

model.safetensors  config.json  metadata.json     every checkpoint
training_state.safetensors  training_state.json   resume checkpoints: optimizer, mean of the weights, RNG, reader
                                                  position
best_model.safetensors                            resume checkpoints: the best weights so far, so that one
                                                  folder is enough to go on from on another machine
shards/shard-00000-of-00002.safetensors ...       resume checkpoints of ranks that share the weights out, in place of
                                                  model.safetensors (`sharded.py`)

A folder is written beside its place, synced and renamed in (`picochat_trainer.atomic`); the one before it stays as
`.previous`. `metadata.json` holds the sha256 of each file and of itself; a reader that finds a difference takes
`.previous` and says so.
"""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat_contract.canonical import digest_of
from picochat_contract.config_base import Config
from picochat_contract.configs import ModelConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.layout import WEIGHTS
from picochat_contract.spec import validated
from pydantic import ConfigDict, ValidationError
from torch import Tensor

from picochat_trainer.atomic import file_sha256, new_folder, previous_of
from picochat_trainer.training.exchange import ALONE, Exchange
from picochat_trainer.training.sharded import SHARDS, Placement, nowhere, read_shards, read_whole
from picochat_trainer.training.spike_watch import Watched
from picochat_trainer.training.tensor_files import write_tensors

logger = logging.getLogger(__name__)

CONFIG = "config.json"
METADATA = "metadata.json"
STATE_TENSORS = "training_state.safetensors"
STATE = "training_state.json"
BEST_WEIGHTS = "best_model.safetensors"
SHARDED_WEIGHTS = "weights."  # before the names of the weights in shards, which hold other tensors too
SAFETENSORS_METADATA = {"format": "pt"}


class Metadata(Config):
    """`metadata.json`, without the digest over itself."""

    kind: str
    """last, best_validation or resume."""
    step: int
    losses: dict[str, float] = {}
    """Such as train_loss, val_loss, val_bpb at this step."""
    files: dict[str, str] = {}
    """File name to sha256."""


class LossPoint(Config):
    """What was measured at one step; validation only at some."""

    step: int
    """Optimizer steps done."""
    train_loss: float | None = None
    """Mean over the last step's tokens, nats."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    val_loss: float | None = None
    val_loss_stderr: float | None = None
    val_bpb: float | None = None
    val_bpb_stderr: float | None = None


class TrainingState(Config):
    """`training_state.json`: all that must survive a kill, besides tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: int
    fingerprint: dict[str, Any]
    """As `fingerprint.py` makes it; a resume with another is refused."""
    position: dict[str, int]
    """Of the batch source."""
    losses: tuple[LossPoint, ...]
    best_step: int | None
    best_val_loss: float | None
    evals_without_improvement: int
    num_nonfinite_steps: int
    nonfinite_in_a_row: int
    tokens_seen: int
    elapsed_seconds: float
    stop_reason: str | None
    loss_baseline: float | None = None
    """Running mean of the training loss that the guard of spikes compares with."""
    rate_scale: float = 1.0
    """What spikes have left of the learning rate."""
    rollbacks: tuple[int, ...] = ()
    """Steps, counted from 0, whose loss was a spike and whose update was undone."""
    loss_spikes: tuple[int, ...] = ()
    """Steps, counted from 1, at which a spike began that was trained on."""
    watched: Watched = Watched()
    """What is known of the losses where no guard judges them."""

    @property
    def spike_steps(self) -> list[int]:
        """Steps of all spikes, undone or trained on, counted from 1 as in curves."""
        return sorted([*self.loss_spikes, *(step + 1 for step in self.rollbacks)])

    @classmethod
    def fresh(cls, fingerprint: dict[str, Any]) -> "TrainingState":
        """Before the first step."""
        return cls(
            step=0,
            fingerprint=fingerprint,
            position={},
            losses=(),
            best_step=None,
            best_val_loss=None,
            evals_without_improvement=0,
            num_nonfinite_steps=0,
            nonfinite_in_a_row=0,
            tokens_seen=0,
            elapsed_seconds=0.0,
            stop_reason=None,
        )


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model's weights on the CPU and what is needed to build the model."""

    config: ModelConfig
    vocab_size: int
    tensors: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint folder whose files have all been found equal to their digests."""

    directory: Path
    metadata: Metadata
    fallback: str | None
    """Why `.previous` was taken instead, or None."""


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    weights: Weights
    state: TrainingState
    tensors: dict[str, Tensor]
    directory: Path
    fallback: str | None


def load_weights(directory: Path) -> tuple[ModelConfig, int, dict[str, Tensor]]:
    """Read (config, vocab_size, tensors), digests checked, from `directory` or else its `.previous`."""
    opened = open_checkpoint(directory)
    weights = _read(opened, nowhere)[0]
    return weights.config, weights.vocab_size, weights.tensors


def shape_of(opened: Opened) -> tuple[ModelConfig, int]:
    """The config of the model and its vocab_size."""
    raw = json.loads((opened.directory / CONFIG).read_text(encoding="utf-8"))
    vocab_size = int(raw.pop("vocab_size"))
    return validated(ModelConfig, raw), vocab_size


def open_checkpoint(directory: Path, ranks: Exchange = ALONE) -> Opened:
    """Check all digests; raise `file_unreadable` where there is nothing, `checkpoint_corrupt` where all is bad.

    Several ranks share the reading out between them, and all come to the same answer.
    """
    problems: list[str] = []
    for candidate in (directory, previous_of(directory)):
        if not _all_see(candidate, ranks):
            continue
        problem, metadata = _check(candidate, ranks)
        if metadata is not None:
            fallback = _fallback_message(directory, candidate, problems)
            if fallback:
                logger.warning(fallback)
            return Opened(directory=candidate, metadata=metadata, fallback=fallback)
        problems.append(f"{candidate.name}: {problem}")
    if not problems:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"no checkpoint at {directory}; give a folder that holds {WEIGHTS}, {CONFIG} and {METADATA}",
            param=str(directory),
        )
    raise ContractError(
        Code.CHECKPOINT_CORRUPT,
        f"no usable checkpoint at {directory}: {'; '.join(problems)}. Restore the folder from a copy, or delete "
        "it to train again",
        param=str(directory),
    )


def load_resume(
    directory: Path, placement: Placement = nowhere, ranks: Exchange = ALONE
) -> ResumePoint | None:
    """Read the resume point, each tensor where `placement` wants it; None where there is none yet."""
    if not any(_all_see(candidate, ranks) for candidate in (directory, previous_of(directory))):
        return None
    opened = open_checkpoint(directory, ranks)
    try:
        state = TrainingState.model_validate_json((opened.directory / STATE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ContractError(
            Code.CHECKPOINT_CORRUPT, f"{opened.directory / STATE} cannot be read: {error}", param=STATE
        ) from error
    weights, tensors = _read(opened, placement)
    return ResumePoint(
        weights=weights,
        state=state,
        tensors=tensors,
        directory=opened.directory,
        fallback=opened.fallback,
    )


def save_weights(directory: Path, weights: Weights, metadata: Metadata) -> None:
    """Write a checkpoint that can be loaded and served, but not resumed."""
    with new_folder(directory) as folder:
        files = {WEIGHTS: write_tensors(folder / WEIGHTS, _plain(weights.tensors), SAFETENSORS_METADATA)}
        _complete(folder, weights, metadata, files)


def save_resume(
    directory: Path,
    weights: Weights,
    state: TrainingState,
    tensors: dict[str, Tensor],
    best: Path | None,
) -> None:
    """Write a resume checkpoint; `best` is the folder with the best weights so far."""
    with new_folder(directory) as folder:
        files = {WEIGHTS: write_tensors(folder / WEIGHTS, _plain(weights.tensors), SAFETENSORS_METADATA)}
        complete_resume(folder, weights, state, tensors, best, files)


def complete_resume(
    folder: Path,
    weights: Weights,
    state: TrainingState,
    tensors: dict[str, Tensor],
    best: Path | None,
    files: dict[str, str],
) -> None:
    """Write what a resume checkpoint needs beside the weights, whose `files` (name to sha256) are in `folder` already."""
    files = {**files, STATE_TENSORS: write_tensors(folder / STATE_TENSORS, _plain(tensors), {})}
    (folder / STATE).write_text(state.model_dump_json(indent=1) + "\n", encoding="utf-8")
    files[STATE] = file_sha256(folder / STATE)
    if best is not None:
        _link_or_copy(best / WEIGHTS, folder / BEST_WEIGHTS)
        files[BEST_WEIGHTS] = _written_metadata(best).files[WEIGHTS]
    _complete(folder, weights, Metadata(kind="resume", step=state.step, losses=_last_losses(state)), files)


def restore_best(resume: ResumePoint, directory: Path, kind: str) -> None:
    """Make `directory` hold the best weights that `resume` knows, where it does not already."""
    saved = resume.directory / BEST_WEIGHTS
    if resume.state.best_step is None or not saved.exists():
        return
    if (directory / METADATA).exists() and _check(directory)[1] is not None:
        found = file_sha256(directory / WEIGHTS)
        if found == file_sha256(saved):
            return
    point = next((p for p in reversed(resume.state.losses) if p.step == resume.state.best_step), None)
    weights = Weights(
        config=resume.weights.config, vocab_size=resume.weights.vocab_size, tensors=read_whole(saved, nowhere)
    )
    losses = losses_of(point) if point else {}
    save_weights(directory, weights, Metadata(kind=kind, step=resume.state.best_step, losses=losses))


def written_files(directory: Path) -> dict[str, str]:
    """Name to sha256 of all files of a checkpoint that this process has written."""
    return {**_written_metadata(directory).files, METADATA: file_sha256(directory / METADATA)}


def losses_of(point: LossPoint) -> dict[str, float]:
    """The losses of a point by name, for `Metadata.losses`."""
    named = {"train_loss": point.train_loss, "val_loss": point.val_loss, "val_bpb": point.val_bpb}
    return {name: value for name, value in named.items() if value is not None}


def _complete(folder: Path, weights: Weights, metadata: Metadata, files: dict[str, str]) -> None:
    """Write the model's config and, with the digests of all files, the metadata."""
    config = {**weights.config.model_dump(mode="json"), "vocab_size": weights.vocab_size}
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    files = {**files, CONFIG: file_sha256(folder / CONFIG)}
    content = metadata.model_copy(update={"files": dict(sorted(files.items()))}).model_dump(mode="json")
    text = json.dumps({**content, "metadata_sha256": digest_of(content)}, indent=1)
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")


def _written_metadata(folder: Path) -> Metadata:
    raw = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    raw.pop("metadata_sha256")
    return Metadata.model_validate(raw)


def _all_see(folder: Path, ranks: Exchange) -> bool:
    """True if the folder is there; raise `file_unreadable` if it is there for some ranks only."""
    seen = ranks.gather(folder.is_dir())
    if any(seen) and not all(seen):
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{folder} is there for some ranks, but not for rank {seen.index(False)}; machines that train together "
            "need one run folder that all of them see",
            param=str(folder),
        )
    return all(seen)


def _check(folder: Path, ranks: Exchange = ALONE) -> tuple[str, Metadata | None]:
    """Return (problem, None) or ("", metadata); each rank reads its share of the files."""
    problem, metadata = _check_share(folder, ranks)
    problem = next(filter(None, ranks.gather(problem)), "")
    return problem, None if problem else metadata


def _check_share(folder: Path, ranks: Exchange) -> tuple[str, Metadata | None]:
    try:
        raw = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        digest = raw.pop("metadata_sha256")
        if digest != digest_of(raw):
            return f"{METADATA} does not match its own digest", None
        metadata = Metadata.model_validate(raw)
        for name in sorted(metadata.files)[ranks.rank :: ranks.world_size]:
            if file_sha256(folder / name) != metadata.files[name]:
                return f"{name} does not match its sha256 in {METADATA}", None
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing", None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{METADATA} cannot be read ({type(error).__name__})", None
    has_weights = WEIGHTS in metadata.files or any(name.startswith(f"{SHARDS}/") for name in metadata.files)
    if not has_weights or CONFIG not in metadata.files:
        return f"{METADATA} does not list {WEIGHTS} and {CONFIG}", None
    return "", metadata


def _read(opened: Opened, placement: Placement) -> tuple[Weights, dict[str, Tensor]]:
    """The weights, and all other tensors, of a checkpoint of either layout."""
    folder, files = opened.directory, opened.metadata.files
    state = read_whole(folder / STATE_TENSORS, placement) if STATE_TENSORS in files else {}
    if WEIGHTS in files:
        tensors = read_whole(folder / WEIGHTS, placement)
    else:
        state |= read_shards(folder / SHARDS, placement)
        names = [name for name in state if name.startswith(SHARDED_WEIGHTS)]
        tensors = {name.removeprefix(SHARDED_WEIGHTS): state.pop(name) for name in names}
    config, vocab_size = shape_of(opened)
    return Weights(config=config, vocab_size=vocab_size, tensors=tensors), state


def _fallback_message(directory: Path, used: Path, problems: list[str]) -> str | None:
    if used == directory:
        return None
    why = "; ".join(problems) or f"{directory.name} is missing"
    return f"using {used} instead of {directory.name} ({why})"


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: on the CPU, contiguous, none sharing memory."""
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # checkpoint files are never changed in place, so a link is as good as a copy
    except OSError:
        shutil.copyfile(source, target)


def _last_losses(state: TrainingState) -> dict[str, float]:
    return losses_of(state.losses[-1]) if state.losses else {}
