"""The checkpoints of one training: resume points, the best weights and the kept ones.

Training waits for a copy of the tensors only. A thread writes, syncs and swaps in; what became of it is told at the next
`poll` or `wait`, by the training's own thread, since nobody else may write events. Of resume points, and of weights, at
most one is being written at a time: the next one waits. A write that fails leaves the checkpoint before it as it was, and
where it was of weights no resume point is written any more: it would say that they are there.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from uuid import uuid4

from picochat_contract.errors import ContractError
from picochat_contract.events import CheckpointFiles
from torch import Tensor
from torch.distributed.tensor import DTensor

from picochat_trainer.context import StageContext
from picochat_trainer.training.checkpoint import (
    SHARDED_WEIGHTS,
    LossPoint,
    Metadata,
    TrainingState,
    Weights,
    losses_of,
    save_weights,
)
from picochat_trainer.training.exchange import Exchange
from picochat_trainer.training.kept import KEPT_KIND, kept_name, take_up_kept
from picochat_trainer.training.optim import Optimizers, below, optimizer_tensors
from picochat_trainer.training.resume import BEST_KIND, MeanWeights, Training, restore, rng_states, weights_of
from picochat_trainer.training.resume_writer import ResumeJob, attempt, write_resume
from picochat_trainer.training.sharded import split_parts
from picochat_trainer.training.staging import Staged, Staging
from picochat_trainer.training.tensor_files import size_of
from picochat_trainer.training.writer import Writer

_RESUME = "resume"
_WEIGHTS = "weights"


class Checkpointer:
    """Saves and takes up one training. Every rank has one, and all ranks call the same methods in the same order."""

    def __init__(
        self, context: StageContext, training: Training, optimizer: Optimizers, ema: MeanWeights | None
    ) -> None:
        self._context = context
        self._training = training
        self._optimizer = optimizer
        self._ema = ema
        self._ranks = Exchange.between_all()
        self._token = self._ranks.from_main(uuid4().hex)
        self._writer = Writer[CheckpointFiles | None]()
        self._staging = {_RESUME: Staging(), _WEIGHTS: Staging()}
        self._not_written: ContractError | None = None  # weights that a resume point would count on

    def restore(self) -> tuple[TrainingState, dict[str, Tensor]] | None:
        """Take up the training at its resume checkpoint: its state and the spike guard's tensors, or None."""
        found = restore(self._context, self._training, self._optimizer, self._ema, self._ranks)
        if self._context.is_main:
            take_up_kept(self._context, self._training.best, found[0].step if found else 0)
        return found

    def save(self, state: TrainingState, snapshot: Mapping[str, Tensor]) -> None:
        """Begin a resume checkpoint; returns once the tensors are copied. `snapshot` is the spike guard's, if any."""
        self._tell(self._writer.wait(_RESUME))
        tensors = self._tensors(snapshot)
        parts, offsets, whole = split_parts(tensors)
        has_best = state.best_step is not None
        job = ResumeJob(
            name=self._training.resume,
            directory=self._context.path(self._training.resume),
            best=self._context.path(self._training.best) if has_best else None,
            weights=weights_of(self._training.model),
            state=state,
            staged=self._staging[_RESUME].copy(parts | (whole if self._context.is_main else {})),
            offsets=offsets if any(isinstance(tensor, DTensor) for tensor in tensors.values()) else None,
            rng=rng_states(),
            token=f"{self._token}-{state.step}",
        )
        self._writer.submit(_RESUME, lambda: write_resume(job, self._ranks, self._not_written))

    def poll(self) -> None:
        """Announce what has been written since the last call, and raise what went wrong; every step, cheap."""
        self._tell(self._writer.done())

    def wait(self) -> None:
        """Return when nothing is being written any more; announces and raises like `poll`."""
        self._tell(self._writer.wait())

    def save_best(self, point: LossPoint) -> None:
        """Begin to write the weights as they are as the best ones; `point` is what was measured on them.

        Where there is a mean of the weights it is the mean that is written, here and in `save_kept`.
        """
        metadata = Metadata(kind=BEST_KIND, step=point.step, losses=losses_of(point))
        self._save_weights(self._context.path(self._training.best), metadata)

    def save_kept(self, step: int, losses: dict[str, float]) -> None:
        """Begin to write the weights as they are beside the last and the best ones: an output of the stage."""
        name = kept_name(self._training.best, step)
        folder = self._context.output(name) if self._context.is_main else self._context.path(name)
        self._save_weights(folder, Metadata(kind=KEPT_KIND, step=step, losses=losses))

    def _tensors(self, snapshot: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All tensors of a resume checkpoint, by their names in shards."""
        model = self._training.model
        groups: dict[str, Mapping[str, Tensor]] = {
            SHARDED_WEIGHTS: model.state_dict(),
            "optimizer.": optimizer_tensors(self._optimizer, model),
            "ema.": self._ema.tensors if self._ema is not None else {},
            "snapshot.": snapshot,
        }
        return {f"{prefix}{name}": t for prefix, tensors in groups.items() for name, t in tensors.items()}

    def _save_weights(self, directory: Path, metadata: Metadata) -> None:
        self._tell(self._writer.wait(_WEIGHTS))
        weights = weights_of(self._training.model)
        means = below("mean.", self._ema.tensors) if self._ema is not None else {}
        tensors: dict[str, Tensor] = {}
        for name, tensor in weights.tensors.items():
            chosen = means.get(name, tensor).to(tensor.dtype)
            if isinstance(chosen, DTensor):
                # All ranks take part. A device holds one or two whole tensors at a time, never the whole model.
                whole = chosen.full_tensor()
                if not self._context.is_main:
                    continue
                chosen = whole.cpu()
            tensors[name] = chosen
        if self._context.is_main:
            staged = self._staging[_WEIGHTS].copy(tensors)
            self._writer.submit(_WEIGHTS, partial(self._write_weights, directory, weights, staged, metadata))

    def _write_weights(self, directory: Path, shape: Weights, staged: Staged, metadata: Metadata) -> None:
        tensors = staged.tensors()
        weights = Weights(config=shape.config, vocab_size=shape.vocab_size, tensors=tensors)
        problem = attempt(lambda: save_weights(directory, weights, metadata), directory, size_of(tensors))
        if isinstance(problem, ContractError):
            self._not_written = problem
            raise problem

    def _tell(self, finished: Iterable[CheckpointFiles | None]) -> None:
        for files in finished:
            if files is not None:
                self._context.events.checkpoint(files)
