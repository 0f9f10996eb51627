"""The training loop of base and SFT: accumulate, clip, step, validate, checkpoint, stop.

Everything that decides a step is in the checkpoint, so that a killed and resumed CPU run ends with bit-equal weights.

B rows, T tokens
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.learning_rates import effective_learning_rate
from torch import Tensor, nn

from picochat_trainer.context import Interrupted, StageContext
from picochat_trainer.model.attention import choose_backend
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training import distributed
from picochat_trainer.training.checkpoint import LossPoint, Metadata, TrainingState, losses_of, save_weights
from picochat_trainer.training.compiled import LossModule, compile_loss, eager
from picochat_trainer.training.hardware import autocast, autocast_dtype, should_compile
from picochat_trainer.training.optim import make_optimizer, set_learning_rate
from picochat_trainer.training.reader import StepBatch
from picochat_trainer.training.resume import BEST_KIND, Training, restore, save_resume_point, weights_of
from picochat_trainer.training.schedule import learning_rate
from picochat_trainer.training.spikes import (
    SNAPSHOT_EVERY,
    SpikeGuard,
    is_spike,
    next_baseline,
    next_rate_scale,
)
from picochat_trainer.training.validation import Validation

MAX_NONFINITE_IN_A_ROW = 3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the loop reports."""

    state: TrainingState
    throughput: dict[str, Any]

    @property
    def best(self) -> LossPoint:
        return next(p for p in self.state.losses if p.step == self.state.best_step)


@dataclass
class Clock:
    """Seconds spent, by what they were spent on, in this process."""

    train: float = 0.0
    compile: float = 0.0
    validate: float = 0.0
    checkpoint: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


def train(context: StageContext, training: Training) -> Outcome:
    """Train to the end, from the resume checkpoint if there is one; raise Interrupted after SIGTERM."""
    return Trainer(context, training).run()


class Trainer:
    """One training in progress."""

    def __init__(self, context: StageContext, training: Training) -> None:
        self.context = context
        self.training = training
        self.config = training.config
        self.model = training.model
        self.clock = Clock()
        self.dtype = autocast_dtype(self.config.precision, context.device)
        self.optimizer = make_optimizer(self.model, self.config, num_ranks=context.world_size)
        choose_backend(self.config.attn_backend, context.device)
        torch.manual_seed(self.config.seed + context.rank)  # dropout; a resume puts its own state over this
        fresh = _fresh_state(training.fingerprint), dict[str, Tensor]()
        self.state, snapshot = restore(context, training, self.optimizer) or fresh
        watches = isinstance(self.config, BaseConfig) and self.config.loss_spike_rollback
        self.spikes = (
            SpikeGuard(self.model, self.optimizer, world_size=context.world_size, saved=snapshot)
            if watches
            else None
        )
        self.interval_tokens = 0
        self.interval_seconds = 0.0
        self.total_tokens = 0  # in this process
        self.base_elapsed = self.state.elapsed_seconds
        self.loss_module, self.compiled = self._build_loss_module()

    def run(self) -> Outcome:
        with self.context.deferred_stop():
            while self.state.stop_reason is None:
                self._obey_requests()
                if self.state.stop_reason is None:
                    self._step()
            self._wrap_up()
        return Outcome(state=self.state, throughput=self._throughput())

    # -- one step

    def _step(self) -> None:
        step = self.state.step
        rate = learning_rate(self.config, step, num_ranks=self.context.world_size) * self.state.rate_scale
        set_learning_rate(self.optimizer, rate)
        with self.clock.measure("train"):
            start = time.perf_counter()
            batch = self.training.batches.next_step()
            loss = self._backward(batch)
            grad_norm = self._clip()
            finite = math.isfinite(grad_norm)
            if self.spikes is not None and self._roll_back_spike(self.spikes, float(loss)):
                finite = math.isfinite(float(loss))
            elif finite:
                self.optimizer.step()
            self.optimizer.zero_grad()
            self.interval_seconds += time.perf_counter() - start
        self._count(batch, finite)
        done = step + 1
        is_last = done >= self.config.max_steps
        if done % self.config.log_every == 0 or done == 1 or is_last:
            self._log(loss, rate, grad_norm)
        if done % self.config.eval_every == 0 or is_last:
            self._validate()
        if is_last:
            self._set(stop_reason="max_steps")
        if done % self.config.checkpoint_every == 0 and not is_last:
            self._save_resume()

    def _backward(self, batch: StepBatch) -> Tensor:
        """Accumulate gradients of the mean loss over the global step; return this rank's share of it."""
        total = torch.zeros((), device=self.context.device)
        world_size = self.context.world_size
        for tokens_BT, targets_BT in batch.micro_batches:
            num_targets = int((targets_BT != IGNORE_INDEX).sum())
            tokens_BT, targets_BT = self._to_device(tokens_BT), self._to_device(targets_BT)
            with autocast(self.context.device, self.dtype):
                mean = self.loss_module(tokens_BT, targets_BT)
            # DDP averages gradients over ranks, so each rank counts world_size times.
            share = mean * (num_targets / batch.num_targets)
            (share * world_size).backward()
            total += share.detach()
        return total

    def _roll_back_spike(self, guard: SpikeGuard, loss: float) -> bool:
        """Undo what led to a spike, or count this step among the good ones; True after a rollback."""
        state = self.state
        if is_spike(loss, state.loss_baseline, state.step):
            guard.roll_back()
            scale = next_rate_scale(state.rate_scale)
            self._set(rollbacks=(*state.rollbacks, state.step), rate_scale=scale)
            message = f"step {state.step}: loss {loss:.3f} is a spike; back to the last snapshot, learning rate x {scale:g}"
            self.context.events.log("warning", message)
            return True
        if state.step % SNAPSHOT_EVERY == 0:
            guard.snapshot()
        self._set(loss_baseline=next_baseline(state.loss_baseline, loss))
        return False

    def _clip(self) -> float:
        limit = self.config.grad_clip or math.inf
        return float(nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    def _count(self, batch: StepBatch, finite: bool) -> None:
        tokens = sum(t.numel() for t, _ in batch.micro_batches) * self.context.world_size
        self.interval_tokens += tokens
        self.total_tokens += tokens
        in_a_row = 0 if finite else self.state.nonfinite_in_a_row + 1
        self._set(
            step=self.state.step + 1,
            tokens_seen=self.state.tokens_seen + tokens,
            num_nonfinite_steps=self.state.num_nonfinite_steps + (not finite),
            nonfinite_in_a_row=in_a_row,
        )
        if not finite:
            self.context.events.log(
                "warning",
                f"step {self.state.step}: the gradient is not finite; the step was skipped",
            )
        if in_a_row >= MAX_NONFINITE_IN_A_ROW:
            raise ContractError(
                Code.INVALID_VALUE,
                f"the loss or its gradient was not finite in {in_a_row} steps in a row, the last being step "
                f"{self.state.step}; lower learning_rate (now {self._peak_rate():g}), raise "
                "warmup_steps, or use precision: float32",
                param="learning_rate",
            )

    # -- what happens between steps

    def _obey_requests(self) -> None:
        out_of_time = self.config.max_minutes is not None and self._elapsed() >= 60 * self.config.max_minutes
        stop, save, late = distributed.any_rank(
            [self.context.stopping, self.context.checkpoint_requested(), out_of_time], self.context.device
        )
        if save or stop:
            self._save_resume()
            self.context.checkpoint_done()
        if stop:
            raise Interrupted
        if late:
            self._validate_if_due()
            self._set(stop_reason="max_minutes")

    def _log(self, loss: Tensor, rate: float, grad_norm: float) -> None:
        mean_loss = distributed.sum_over_ranks([float(loss)], self.context.device)[0]
        speed = self.interval_tokens / max(self.interval_seconds, 1e-9)
        steps_left = self.config.max_steps - self.state.step
        eta = steps_left * self._tokens_per_step() / max(speed, 1e-9)
        self.interval_tokens, self.interval_seconds = 0, 0.0
        self._add_point(train_loss=_finite(mean_loss), learning_rate=rate, grad_norm=_finite(grad_norm))
        events = self.context.events
        events.metric(
            self.state.step,
            train_loss=mean_loss,
            lr=rate,
            grad_norm=grad_norm,
            tokens_per_second=speed,
            eta_seconds=eta,
        )
        message = f"loss {mean_loss:.3f}, {speed:,.0f} tokens/s"
        events.progress(self.state.step, self.config.max_steps, "steps", message)

    def _validate(self) -> None:
        with self.clock.measure("validate"):
            found = self._run_validator()
        self._add_point(val_loss=_finite(found.loss), val_bpb=_finite(found.bpb))
        values = {"val_loss": found.loss} | ({} if found.bpb is None else {"val_bpb": found.bpb})
        self.context.events.metric(self.state.step, **values)
        best = self.state.best_val_loss
        improved = math.isfinite(found.loss) and (
            best is None or found.loss < best - self.config.early_stop_min_delta
        )
        if improved:
            self._set(best_step=self.state.step, best_val_loss=found.loss, evals_without_improvement=0)
            self._save_best()
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
        self._save_resume()

    # -- checkpoints

    def _save_best(self) -> None:
        if self.context.is_main:
            point = self.state.losses[-1]
            metadata = Metadata(kind=BEST_KIND, step=point.step, losses=losses_of(point))
            with self.clock.measure("checkpoint"):
                save_weights(self.context.path(self.training.best), weights_of(self.training.model), metadata)

    def _save_resume(self) -> None:
        self._set(elapsed_seconds=self._elapsed(), position=self.training.batches.position)
        with self.clock.measure("checkpoint"):
            snapshot = self.spikes.tensors if self.spikes is not None else {}
            save_resume_point(self.context, self.training, self.optimizer, self.state, snapshot)

    # -- small things

    def _build_loss_module(self) -> tuple[nn.Module, bool]:
        self.model.train()
        module = LossModule(self.model)
        compiled = False
        shapes = self.training.batches.shapes()
        if self.state.stop_reason is None and self._should_compile(shapes):
            with self.clock.measure("compile"):
                module, compiled = compile_loss(module, shapes, self.context, self.dtype)
        return distributed.wrap(module, self.context.device), compiled

    def _should_compile(self, shapes: list[tuple[int, int]]) -> bool:
        """Decided from the whole training, not from what is left of it: a resumed run computes the same way."""
        tokens = sum(rows * width for rows, width in shapes) / len(shapes)
        flops = self.config.max_steps * self.config.grad_accum_steps * tokens * self.model.flops_per_token()
        return should_compile(self.config, self.context.device, self.dtype, flops, len(shapes))

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self.context.device == "cpu":
            return tensor
        return tensor.pin_memory().to(self.context.device, non_blocking=True)

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
        return self.base_elapsed + time.perf_counter() - self.clock.started

    def _tokens_per_step(self) -> float:
        return self.state.tokens_seen / max(self.state.step, 1)

    def _throughput(self) -> dict[str, Any]:
        speed = self.total_tokens / self.clock.train if self.clock.train else None
        return {
            "tokens_per_second": speed,
            "train_seconds": self.clock.train,
            "compile_seconds": self.clock.compile,
            "validate_seconds": self.clock.validate,
            "checkpoint_seconds": self.clock.checkpoint,
            "elapsed_seconds": self.state.elapsed_seconds,
            "flops_per_token": self.model.flops_per_token(),
            "rollbacks": list(self.state.rollbacks),
            "compiled": self.compiled,
            "precision": "bf16" if self.dtype is torch.bfloat16 else "float32",
        }


def _fresh_state(fingerprint: dict[str, Any]) -> TrainingState:
    return TrainingState(
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


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
