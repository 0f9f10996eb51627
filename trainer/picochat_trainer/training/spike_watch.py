"""Loss spikes where nothing undoes them: told, and the end of a training that has diverged.

What a spike is, `spikes.py` says. The losses are those that the loop reads anyway, so that watching asks neither the device
nor the other ranks for anything; sums over ranks are equal on all, which thus decide alike. What is known lies in
`TrainingState`, for a resume. Where `SpikeGuard` judges, this does not.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from picochat_contract.configs import BaseConfig, OptimConfig
from picochat_contract.errors import Code, ContractError

from picochat_trainer.training.spikes import THRESHOLD, WARM_STEPS, is_spike, next_baseline

DIVERGED_STEPS: Final = 20
"""Spikes in a row that end a training: as many steps as the running mean remembers, 1 / (1 - BETA). One that recovers has
time to, one that does not costs little more. Hard batches alone do not get there: at most 1 / THRESHOLD = 0.4 of losses
lie over THRESHOLD times their mean (Markov's inequality), and 0.4 ** 20 is 1e-8."""
CALM_STEPS: Final = 20
"""Steps without a spike that end an event: a loss that jumps up and down is told once."""
LEAST_RISE: Final = 0.5
"""Nats over the mean that a spike has at least: rows that are learned by heart cost 0.02, and the next ones 0.1."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What is known behind a loss; by default before the first."""

    baseline: float | None = None
    """Running mean of the losses that were no spikes, nats."""
    in_a_row: int = 0
    """Spikes up to this loss without another one between, steps."""
    last_spike: int | None = None
    """Its step, counted from 0."""
    begins: bool = False
    """This loss is the first spike of an event."""


def watched(step: int, loss: float, before: Watched) -> Watched:
    """Take in the loss of `step`, counted from 0. One that is not finite changes nothing: the loop counts these."""
    baseline = before.baseline
    if not math.isfinite(loss):
        return replace(before, begins=False)
    if baseline is not None and loss > baseline + LEAST_RISE and is_spike(loss, baseline, step):
        last = before.last_spike
        return Watched(
            baseline=baseline,
            in_a_row=before.in_a_row + 1,
            last_spike=step,
            begins=last is None or step - last > CALM_STEPS,
        )
    if baseline is not None and step < WARM_STEPS:
        baseline = max(baseline, loss)  # one easy batch must not be the measure
    else:
        baseline = next_baseline(baseline, loss)
    return Watched(baseline=baseline, last_spike=before.last_spike)


def spike_warning(done: int, loss: float, found: Watched, config: OptimConfig) -> str:
    """Of an event that begins; `done` counts the step from 1, as curves do."""
    mend = (
        "set base.loss_spike_rollback to undo such steps, lower base.learning_rate, or look at the training text"
        if isinstance(config, BaseConfig)
        else "if it does not fall again, lower sft.learning_rate, or look at the chat rows"
    )
    return (
        f"step {done}: loss {loss:.3f} is a spike, the running mean is {found.baseline or 0.0:.3f}; the step was trained "
        f"on; {mend}"
    )


def refuse_divergence(done: int, loss: float, found: Watched, config: OptimConfig) -> None:
    """Raise ContractError where the loss has been a spike for DIVERGED_STEPS steps."""
    if found.in_a_row < DIVERGED_STEPS:
        return
    mend = (
        "lower base.learning_rate, raise base.warmup_steps, set base.loss_spike_rollback, or look at the training text"
        if isinstance(config, BaseConfig)
        else "lower sft.learning_rate, raise sft.warmup_steps, or look at the chat rows"
    )
    raise ContractError(
        Code.INVALID_VALUE,
        f"the training has diverged: at step {done}, for {DIVERGED_STEPS} steps in a row, the loss ({loss:.3f}) was over "
        f"{THRESHOLD:g} times its running mean before them ({found.baseline or 0.0:.3f}); {mend}, and train again",
        param="learning_rate",
    )
