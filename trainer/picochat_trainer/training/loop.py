"""The training loop of base and SFT: step, validate, checkpoint, stop.

Everything that decides a step is in the checkpoint, so that a killed and resumed CPU run ends with bit-equal weights.
On CUDA the values of a step are read one step late, and on steps that log, validate or save at once (`readback.py`).
"""

import gc
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.learning_rates import effective_learning_rate
from torch import Tensor, nn

from picochat_trainer.context import Interrupted, StageContext
from picochat_trainer.model.gpt import choose_backend
from picochat_trainer.training import distributed
from picochat_trainer.training.checkpoint import LossPoint, TrainingState, losses_of
from picochat_trainer.training.checkpointer import Checkpointer
from picochat_trainer.training.compiled import LossModule, compile_loss, eager
from picochat_trainer.training.ema import Ema
from picochat_trainer.training.hardware import autocast, autocast_dtype, should_compile
from picochat_trainer.training.metrics import Meter
from picochat_trainer.training.optim import make_optimizer, set_learning_rate
from picochat_trainer.training.prefetch import open_feed
from picochat_trainer.training.readback import Readback, StepValues
from picochat_trainer.training.resume import Training
from picochat_trainer.training.schedule import learning_rate
from picochat_trainer.training.spike_watch import refuse_divergence, spike_warning, watched
from picochat_trainer.training.spikes import SNAPSHOT_EVERY, SpikeGuard, rate_scale_after
from picochat_trainer.training.step import TrainStep
from picochat_trainer.training.tensorboard import open_board
from picochat_trainer.training.validation import Validation

MAX_NONFINITE_IN_A_ROW = 3
STOP_AFTER_STEPS = "stop_after_steps"
OUT_OF_TIME = "max_minutes"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the loop reports."""

    state: TrainingState
    throughput: dict[str, Any]
    weights: dict[str, Tensor]
    """Whole, on the CPU of the main rank, of the last step or their mean; {} on the others."""

    @property
    def best(self) -> LossPoint:
        return next(p for p in self.state.losses if p.step == self.state.best_step)


def train(context: StageContext, training: Training) -> Outcome:
    """Train to the end, from the resume checkpoint if there is one; raise Interrupted after SIGTERM."""
    return Trainer(context, training).run()


class Trainer:
    """One training in progress."""

    def __init__(self, context: StageContext, training: Training, *, lag: int | None = None) -> None:
        self.context = context
        self.training = training
        self.config = training.config
        self.model = training.model
        self.dtype = autocast_dtype(self.config.precision, context.device)
        self.model.gradient_checkpointing = self.config.gradient_checkpointing
        self.model.loss_chunk_tokens = self.config.loss_chunk_tokens
        with autocast(context.device, self.dtype):
            choose_backend(self.model, self.config.attn_backend, context.device)
        self.meter = Meter(self.model, context.device, self.dtype, context.world_size)
        self.optimizer = make_optimizer(self.model, self.config, num_ranks=context.world_size)
        self.ema = Ema(self.model, self.config.ema_decay) if self.config.ema_decay else None
        self.checkpointer = Checkpointer(context, training, self.optimizer, self.ema)
        torch.manual_seed(self.config.seed + context.rank)  # dropout; a resume puts its own state over this
        fresh = TrainingState.fresh(training.fingerprint), dict[str, Tensor]()
        self.state, snapshot = self.checkpointer.restore() or fresh
        watches = isinstance(self.config, BaseConfig) and self.config.loss_spike_rollback
        self.spikes = (
            SpikeGuard(self.model, self.optimizer, saved=snapshot, ema=self.ema) if watches else None
        )
        self.readback = Readback(context.device, lag)
        self.last_values: StepValues | None = None
        self.base_elapsed = self.state.elapsed_seconds
        if self.state.stop_reason == OUT_OF_TIME and not self._is_late(self.base_elapsed):
            self._set(stop_reason=None)  # this job has more time than the one before
        module = self._build_loss_module()
        self.step = TrainStep(context, self.config, self.model, module, self.optimizer, self.ema, self.dtype)
        self.board = open_board(context, training, self.state.step)
        self.feed = open_feed(training.batches, context.device)

    def run(self) -> Outcome:
        with self.context.deferred_stop(), closing(self.board), closing(self.feed), _few_collections():
            while self.state.stop_reason is None:
                self._obey_requests()
                if self.state.stop_reason is None:
                    self._step()
            self._wrap_up()
        return Outcome(state=self.state, throughput=self._throughput(), weights=self._last_weights())

    # -- one step

    def _step(self) -> None:
        step = self.state.step
        rate = learning_rate(self.config, step, num_ranks=self.context.world_size) * self.state.rate_scale
        clock = self.meter.clock
        with clock.measure("train"):
            set_learning_rate(self.optimizer, rate)
            with clock.measure("data_wait"):
                batch = self.feed.next_step()
            found = self.step.backward(batch)
            self.readback.push(step, found.values)
            if self.spikes is not None and self._undo_spike(self.spikes, found.loss_share):
                self.step.forget()
            else:
                self.step.update(found.values)
            self._read(everything=self._logs_at(step + 1))
        tokens = self.meter.count(batch.shapes)
        self._set(step=step + 1, tokens_seen=self.state.tokens_seen + tokens)
        self._after_step(rate)

    def _after_step(self, rate: float) -> None:
        config, done = self.config, self.state.step
        is_last = done >= config.max_steps
        if self._logs_at(done):
            self._log(rate)
        if done % config.eval_every == 0 or is_last:
            self._validate()
        if config.keep_every and done % config.keep_every == 0:
            self._keep()
        if is_last:
            self._set(stop_reason="max_steps")
        elif done % config.checkpoint_every == 0:
            self._save_resume()
        self.checkpointer.poll()

    def _logs_at(self, done: int) -> bool:
        return done % self.config.log_every == 0 or done in (1, self.config.max_steps)

    def _read(self, *, everything: bool) -> None:
        """Judge the steps whose values have come, and abort after several that were skipped or have diverged."""
        for found in self.readback.take(everything=everything):
            self.last_values = found
            in_a_row = 0 if found.is_finite else self.state.nonfinite_in_a_row + 1
            total = self.state.num_nonfinite_steps + (not found.is_finite)
            self._set(num_nonfinite_steps=total, nonfinite_in_a_row=in_a_row)
            if not found.is_finite:
                message = (
                    f"step {found.step + 1}: the loss or its gradient is not finite; the step was skipped"
                )
                self.context.events.log("warning", message)
            # The guard looks only so often, and may put right what is wrong.
            patience = 0 if self.spikes is None else SNAPSHOT_EVERY
            if in_a_row >= MAX_NONFINITE_IN_A_ROW + patience:
                raise ContractError(
                    Code.INVALID_VALUE,
                    f"the loss or its gradient was not finite in {in_a_row} steps in a row, the last being step "
                    f"{found.step + 1}; lower learning_rate (now {self._peak_rate():g}), raise warmup_steps, or "
                    "use precision: float32",
                    param="learning_rate",
                )
            if self.spikes is None:
                self._watch(found)

    def _watch(self, found: StepValues) -> None:
        """Judge a loss that no guard judges."""
        done, before = found.step + 1, self.state.watched
        seen = watched(found.step, found.loss, before)
        self._set(watched=seen)
        if seen.begins:
            self._set(loss_spikes=(*self.state.loss_spikes, done))
            self.context.events.log("warning", spike_warning(done, found.loss, before, self.config))
        refuse_divergence(done, seen, self.config)

    def _undo_spike(self, guard: SpikeGuard, loss_share: Tensor) -> bool:
        """Where it is time, judge the losses since the last snapshot; True if the steps since then were undone."""
        state = self.state
        guard.add(loss_share)
        if not guard.is_due(state.step):
            return False
        found = guard.judge(state.step, state.loss_baseline)
        self._set(loss_baseline=found.baseline)
        if found.spike_step is None:
            return False
        scale = rate_scale_after(found.spike_step, state.rate_scale, state.rollbacks)
        self._set(rollbacks=(*state.rollbacks, found.spike_step), rate_scale=scale)
        message = (
            f"step {found.spike_step}: loss {found.spike_loss:.3f} is a spike; back to the last snapshot, "
            f"learning rate x {scale:g}"
        )
        self.context.events.log("warning", message)
        return True

    def _catch_up(self) -> None:
        """Read all values and wait for the device, so that what follows is not charged for steps under way."""
        with self.meter.clock.measure("train"):
            self._read(everything=True)
            if self.context.device != "cpu":
                torch.cuda.synchronize(self.context.device)

    # -- what happens between steps

    def _obey_requests(self) -> None:
        """Do what any rank asks for."""
        stop, save, late = distributed.any_rank(
            [self.context.stopping, self.context.checkpoint_requested(), self._is_late(self._elapsed())]
        )
        if save or stop:
            self._save_resume()
            self.checkpointer.wait()  # who asked is told when it is written
            self.context.checkpoint_done()
        if stop:
            raise Interrupted
        if late:
            self._validate_if_due()
            self._set(stop_reason=OUT_OF_TIME)
        elif self.config.stop_after_steps is not None and self.state.step >= self.config.stop_after_steps:
            self._pause()

    def _pause(self) -> None:
        """End here so that a training without `stop_after_steps` goes on as if it had never stopped."""
        self._save_resume()
        self.checkpointer.wait()
        self.context.keep(self.training.resume)
        self._validate_if_due()  # for the report; the checkpoint knows nothing of it
        self._set(stop_reason=STOP_AFTER_STEPS)

    def _log(self, rate: float) -> None:
        found, state = self.last_values, self.state
        assert found is not None
        speed = self.meter.interval_speed()
        steps_left = self.config.max_steps - state.step
        eta = steps_left * state.tokens_seen / state.step / max(speed, 1e-9)
        self._add_point(
            train_loss=_finite(found.loss), learning_rate=rate, grad_norm=_finite(found.grad_norm)
        )
        values = {
            "train_loss": found.loss,
            "lr": rate,
            "grad_norm": found.grad_norm,
            "tokens_per_second": speed,
            "eta_seconds": eta,
        }
        self.context.events.metric(state.step, **values)
        self.board.scalars(state.step, values)
        message = f"loss {found.loss:.3f}, {speed:,.0f} tokens/s"
        self.context.events.progress(state.step, self.config.max_steps, "steps", message)

    def _validate(self) -> None:
        self._catch_up()
        with self._mean_weights():
            with self.meter.clock.measure("validate"):
                found = self._run_validator()
            self._add_point(
                val_loss=_finite(found.loss),
                val_loss_stderr=_finite(found.loss_stderr),
                val_bpb=_finite(found.bpb),
                val_bpb_stderr=_finite(found.bpb_stderr),
            )
            values = {"val_loss": found.loss} | ({} if found.bpb is None else {"val_bpb": found.bpb})
            self.context.events.metric(self.state.step, **values)
            self.board.scalars(self.state.step, values)
            best = self.state.best_val_loss
            delta = self.config.early_stop_min_delta
            if math.isfinite(found.loss) and (best is None or found.loss < best - delta):
                self._set(best_step=self.state.step, best_val_loss=found.loss, evals_without_improvement=0)
                with self.meter.clock.measure("checkpoint"):
                    self.checkpointer.save_best(self.state.losses[-1])
            else:
                self._set(evals_without_improvement=self.state.evals_without_improvement + 1)
        patience = self.config.early_stop_patience
        if patience and self.state.evals_without_improvement >= patience:
            self._set(stop_reason="early_stop")

    def _run_validator(self) -> Validation:
        self.model.eval()
        try:
            with eager(), autocast(self.context.device, self.dtype):
                return self.training.validator(self.model)
        finally:
            self.model.train()

    def _validate_if_due(self) -> None:
        last = self.state.losses[-1] if self.state.losses else None
        if last is None or last.step != self.state.step or last.val_loss is None:
            self._validate()

    def _wrap_up(self) -> None:
        """Save the end, so that a kill during the reports does not cost the training."""
        if self.state.best_step is None:
            raise ContractError(
                Code.INVALID_VALUE,
                "no validation loss was finite, so there is no best checkpoint; lower learning_rate",
                param="learning_rate",
            )
        if self.state.stop_reason != STOP_AFTER_STEPS:
            self._save_resume()
        with self.meter.clock.measure("checkpoint"):
            self.checkpointer.wait()

    def _last_weights(self) -> dict[str, Tensor]:
        with self._mean_weights():
            return distributed.full_tensors(self.model)

    # -- checkpoints

    def _keep(self) -> None:
        losses = self.state.losses
        measured = losses_of(losses[-1]) if losses and losses[-1].step == self.state.step else {}
        self._catch_up()
        with self.meter.clock.measure("checkpoint"):
            self.checkpointer.save_kept(self.state.step, measured)

    def _save_resume(self) -> None:
        self._catch_up()
        self._set(elapsed_seconds=self._elapsed(), position=self.feed.position)
        with self.meter.clock.measure("checkpoint"):
            self.checkpointer.save(self.state, self.spikes.tensors if self.spikes is not None else {})

    # -- small things

    def _build_loss_module(self) -> nn.Module:
        self.model.train()
        shapes = self.training.batches.shapes()
        if self.state.stop_reason is None and self._should_compile(shapes):
            with self.meter.clock.measure("compile"):
                self.meter.compiled = compile_loss(self.model, shapes, self.context, self.dtype)
        return distributed.wrap(LossModule(self.model), self.context.device, self.context.strategy)

    def _should_compile(self, shapes: list[tuple[int, int]]) -> bool:
        """Decided from the whole training, not from what is left of it: a resumed run computes the same way."""
        tokens = sum(rows * width for rows, width in shapes) / len(shapes)
        flops = self.config.max_steps * self.config.grad_accum_steps * tokens * self.model.flops_per_token()
        return should_compile(self.config, self.context.device, self.dtype, flops, len(shapes))

    def _mean_weights(self) -> AbstractContextManager[None]:
        """Inside, the model has the running mean for its weights where there is one."""
        return nullcontext() if self.ema is None else self.ema.applied()

    def _add_point(self, **values: float | None) -> None:
        """Add measurements of this step, to its point if there is one already."""
        losses = self.state.losses
        if losses and losses[-1].step == self.state.step:
            self._set(losses=(*losses[:-1], losses[-1].model_copy(update=values)))
        else:
            self._set(losses=(*losses, LossPoint(step=self.state.step, **values)))

    def _peak_rate(self) -> float:
        return effective_learning_rate(self.config, self.context.world_size)

    def _set(self, **values: Any) -> None:
        self.state = self.state.model_copy(update=values)

    def _elapsed(self) -> float:
        return self.base_elapsed + self.meter.clock.elapsed

    def _is_late(self, elapsed: float) -> bool:
        limit = self.config.max_minutes
        return limit is not None and elapsed >= 60 * limit

    def _throughput(self) -> dict[str, Any]:
        state = self.state
        whole = {"elapsed_seconds": state.elapsed_seconds, "rollbacks": list(state.rollbacks)}
        return self.meter.report() | whole


@contextmanager
def _few_collections() -> Iterator[None]:
    """Leave what is there at the start out of garbage collection: a full one stops the step for up to 0.5 s."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
