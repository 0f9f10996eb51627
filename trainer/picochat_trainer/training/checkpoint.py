"""Checkpoint folders: safetensors and JSON only, so that loading one never runs code from it.

model.safetensors  config.json  metadata.json     every checkpoint
training_state.safetensors  training_state.json   resume checkpoints: optimizer, RNG, reader position
best_model.safetensors                            resume checkpoints: the best weights so far, so that one
                                                  folder is enough to go on from on another machine

A folder is written beside its place, synced and renamed in (`picochat_trainer.atomic`); the one before it stays as
`.previous`. `metadata.json` holds the sha256 of each file and of itself; a reader that finds a difference takes
`.previous` and says so.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
from safetensors.torch import load_file, save_file
from torch import Tensor

from picochat_trainer.atomic import file_sha256, new_folder, previous_of

logger = logging.getLogger(__name__)

CONFIG = "config.json"
METADATA = "metadata.json"
STATE_TENSORS = "training_state.safetensors"
STATE = "training_state.json"
BEST_WEIGHTS = "best_model.safetensors"


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
    val_bpb: float | None = None


class TrainingState(Config):
    """`training_state.json`: all that must survive a kill, besides tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: int
    fingerprint: dict[str, Any]
    """Data, tokenizer, config and world size; a resume with others is refused."""
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
    """Running mean of the training loss, where spikes are watched for."""
    rate_scale: float = 1.0
    """What spikes have left of the learning rate."""
    rollbacks: tuple[int, ...] = ()
    """Steps whose loss was a spike and whose update was undone."""


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
    weights = _read_weights(opened.directory)
    return weights.config, weights.vocab_size, weights.tensors


def open_checkpoint(directory: Path) -> Opened:
    """Check all digests; raise `file_unreadable` where there is nothing, `checkpoint_corrupt` where all is bad."""
    problems: list[str] = []
    for candidate in (directory, previous_of(directory)):
        if not candidate.is_dir():
            continue
        problem, metadata = _check(candidate)
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


def load_resume(directory: Path) -> ResumePoint | None:
    """Read the resume point, or None where there is none yet."""
    if not directory.is_dir() and not previous_of(directory).is_dir():
        return None
    opened = open_checkpoint(directory)
    try:
        state = TrainingState.model_validate_json((opened.directory / STATE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ContractError(
            Code.CHECKPOINT_CORRUPT, f"{opened.directory / STATE} cannot be read: {error}", param=STATE
        ) from error
    return ResumePoint(
        weights=_read_weights(opened.directory),
        state=state,
        tensors=load_file(opened.directory / STATE_TENSORS),
        directory=opened.directory,
        fallback=opened.fallback,
    )


def save_weights(directory: Path, weights: Weights, metadata: Metadata) -> None:
    """Write a checkpoint that can be loaded and served, but not resumed."""
    with _writing(directory, weights, metadata):
        pass


def save_resume(
    directory: Path,
    weights: Weights,
    state: TrainingState,
    tensors: dict[str, Tensor],
    best: Path | None,
) -> None:
    """Write a resume checkpoint; `best` is the folder with the best weights so far."""
    metadata = Metadata(kind="resume", step=state.step, losses=_last_losses(state))
    with _writing(directory, weights, metadata) as folder:
        save_file(_plain(tensors), folder / STATE_TENSORS)
        (folder / STATE).write_text(state.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if best is not None:
            _link_or_copy(best / WEIGHTS, folder / BEST_WEIGHTS)


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
        config=resume.weights.config, vocab_size=resume.weights.vocab_size, tensors=load_file(saved)
    )
    losses = losses_of(point) if point else {}
    save_weights(directory, weights, Metadata(kind=kind, step=resume.state.best_step, losses=losses))


def refuse_other_fingerprint(found: dict[str, Any], expected: dict[str, Any], directory: Path) -> None:
    """Raise `fingerprint_mismatch`, naming each difference, unless both are equal."""
    differences = list(_differences(found, expected, ""))
    if differences:
        raise ContractError(
            Code.FINGERPRINT_MISMATCH,
            f"{directory} belongs to another training: {'; '.join(differences)}. Restore the setting, or delete "
            "the folder to start from the beginning",
            param=differences[0].split(":")[0],
        )


def losses_of(point: LossPoint) -> dict[str, float]:
    """The losses of a point by name, for `Metadata.losses`."""
    named = {"train_loss": point.train_loss, "val_loss": point.val_loss, "val_bpb": point.val_bpb}
    return {name: value for name, value in named.items() if value is not None}


@contextmanager
def _writing(directory: Path, weights: Weights, metadata: Metadata) -> Iterator[Path]:
    with new_folder(directory) as folder:
        save_file(_plain(weights.tensors), folder / WEIGHTS, metadata={"format": "pt"})
        config = {**weights.config.model_dump(mode="json"), "vocab_size": weights.vocab_size}
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        yield folder
        files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        content = metadata.model_copy(update={"files": files}).model_dump(mode="json")
        text = json.dumps({**content, "metadata_sha256": digest_of(content)}, indent=1)
        (folder / METADATA).write_text(text + "\n", encoding="utf-8")


def _check(folder: Path) -> tuple[str, Metadata | None]:
    """Return (problem, None) or ("", metadata)."""
    try:
        raw = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        digest = raw.pop("metadata_sha256")
        if digest != digest_of(raw):
            return f"{METADATA} does not match its own digest", None
        metadata = Metadata.model_validate(raw)
        for name, expected in metadata.files.items():
            if file_sha256(folder / name) != expected:
                return f"{name} does not match its sha256 in {METADATA}", None
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing", None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{METADATA} cannot be read ({type(error).__name__})", None
    if WEIGHTS not in metadata.files or CONFIG not in metadata.files:
        return f"{METADATA} does not list {WEIGHTS} and {CONFIG}", None
    return "", metadata


def _read_weights(folder: Path) -> Weights:
    raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    vocab_size = int(raw.pop("vocab_size"))
    return Weights(
        config=validated(ModelConfig, raw), vocab_size=vocab_size, tensors=load_file(folder / WEIGHTS)
    )


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


def _differences(found: Any, expected: Any, where: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            yield from _differences(found.get(key), expected.get(key), f"{where}.{key}" if where else key)
    elif found != expected:
        yield f"{where}: the checkpoint has {found!r}, this job has {expected!r}"
