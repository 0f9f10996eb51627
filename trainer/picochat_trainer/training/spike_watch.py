"""Loss spikes where nothing undoes them: told, and the end of a training that has forgotten what it had learned.

A spike is seven standard deviations over the running mean, after the spike score of OLMo 2 (arXiv 2501.00656; its number as it
is quoted, not held against the paper, and its mean is longer). So losses that differ from batch to batch, as those of chat
rows do, are none. A training has diverged where the running mean is back
more than half of the way to where it began, and stays there: a rise like that of other text does not get there.

The losses are those that the loop reads anyway, so that watching asks neither the device nor the other ranks for anything;
sums over ranks are equal on all, which thus decide alike. What is known lies in `TrainingState`, for a resume. Where
`SpikeGuard` judges, this does not.
"""

import math
from typing import Final

from picochat_contract.config_base import Config
from picochat_contract.configs import BaseConfig, OptimConfig
from picochat_contract.errors import Code, ContractError

from picochat_trainer.training.spikes import BETA, WARM_STEPS

SIGMAS: Final = 7.0
LEAST_RISE: Final = 0.5
"""Nats over the mean that a spike has at least: rows that are learned by heart all cost the same, and the next ones 0.1 more."""
JUDGED_FROM: Final = 20
"""Step, counted from 0, of the first loss that may be a spike: as many as the running mean remembers, 1 / (1 - BETA)."""
CALM_STEPS: Final = 20
"""Steps without a spike that end an event: a loss that jumps up and down is told once."""
LEAST_LEARNED: Final = 1.0
"""Nats below its start that a training has come before it can be said to have lost them."""
LOST_SHARE: Final = 0.5
"""Of what was learned."""
DIVERGED_STEPS: Final = 20
"""Steps in a row for which that share is lost. The mean takes fourteen to show it, so that at least 34 steps are about as bad
as the first ones were before a training ends."""


class Watched(Config):
    """What is known behind a loss; by default before the first. Losses and means are nats per token."""

    mean: float | None = None
    """Running mean. A loss over `start` counts as `start`."""
    variance: float = 0.0
    """Running mean of half the squared step from loss to loss (von Neumann's estimate, which a falling loss does not raise);
    a spike counts as where spikes begin."""
    previous: float = 0.0
    """Loss before the next one; a spike counts as where spikes begin."""
    start: float = 0.0
    """Largest loss of the first steps: one easy batch must not be the measure."""
    lowest: float = 0.0
    """Smallest running mean so far."""
    num_lost: int = 0
    """Steps in a row, up to this one, for which LOST_SHARE of what was learned is lost."""
    last_spike: int | None = None
    """Its step, counted from 0."""
    begins: bool = False
    """This loss is the first spike of an event."""

    @property
    def has_diverged(self) -> bool:
        return self.num_lost >= DIVERGED_STEPS


def watched(step: int, loss: float, before: Watched) -> Watched:
    """Take in the loss of `step`, counted from 0. One that is not finite changes nothing: the loop counts these."""
    if not math.isfinite(loss):
        return before.model_copy(update={"begins": False})
    if before.mean is None or step < WARM_STEPS:
        start = max(before.start, loss)
        return Watched(mean=start, previous=loss, start=start, lowest=start)
    margin = max(LEAST_RISE, SIGMAS * math.sqrt(before.variance))
    is_spike = step >= JUDGED_FROM and loss > before.mean + margin
    held = min(loss, before.mean + margin)
    mean = BETA * before.mean + (1 - BETA) * min(loss, before.start)
    lowest, last = min(before.lowest, mean), before.last_spike
    learned = before.start - lowest
    is_lost = learned >= LEAST_LEARNED and mean > lowest + LOST_SHARE * learned
    return Watched(
        mean=mean,
        variance=BETA * before.variance + (1 - BETA) * (held - before.previous) ** 2 / 2,
        previous=held,
        start=before.start,
        lowest=lowest,
        num_lost=before.num_lost + 1 if is_lost else 0,
        last_spike=step if is_spike else last,
        begins=is_spike and (last is None or step - last > CALM_STEPS),
    )


def spike_warning(done: int, loss: float, before: Watched, config: OptimConfig) -> str:
    """Of an event that begins; `done` counts the step from 1, as curves do, `before` is what was known before its loss."""
    mend = (
        "set base.loss_spike_rollback to undo such steps, lower base.learning_rate, or look at the training text"
        if isinstance(config, BaseConfig)
        else "if it does not fall again, lower sft.learning_rate, or look at the chat rows"
    )
    return (
        f"step {done}: loss {loss:.3f} is a spike, the running mean is {before.mean or 0.0:.3f}; the step was trained "
        f"on; {mend}"
    )


def refuse_divergence(done: int, found: Watched, config: OptimConfig) -> None:
    """Raise ContractError where the training has lost what it had learned."""
    if not found.has_diverged:
        return
    mend = (
        "lower base.learning_rate, raise base.warmup_steps, set base.loss_spike_rollback, or look at the training text"
        if isinstance(config, BaseConfig)
        else "lower sft.learning_rate, raise sft.warmup_steps, or look at the chat rows"
    )
    raise ContractError(
        Code.INVALID_VALUE,
        f"the training has diverged: its loss began at {found.start:.3f}, had come down to {found.lowest:.3f}, and for "
        f"{DIVERGED_STEPS} steps up to step {done} its running mean, now {found.mean or 0.0:.3f}, has been more than half of "
        f"the way back; {mend}, and train again",
        param="learning_rate",
    )
