"""A loss that jumps is undone by the loop or told, and a stop at any step changes nothing of it."""

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_contract.errors import Code, ContractError
from picochat_trainer.context import Interrupted
from picochat_trainer.training.checkpoint import TrainingState, load_resume
from picochat_trainer.training.loop import Outcome, Trainer, train
from picochat_trainer.training.reader import WindowReader
from picochat_trainer.training.spike_watch import CALM_STEPS, DIVERGED_STEPS, Watched
from support.jumps import Jump
from support.trainings import VOCAB, base_context, read_events, tiny_model, tiny_training, train_losses


class Killed(BaseException):
    """Stands for a kill."""


class Poisoned:
    """Batches of a reader, of which some have targets that the model has never seen: their loss jumps."""

    def __init__(
        self,
        reader: WindowReader,
        bad_step: int | range,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.reader = reader
        self.bad_steps = range(bad_step, bad_step + 1) if isinstance(bad_step, int) else bad_step
        self.on_step = on_step
        self.num_given = 0

    @property
    def position(self) -> dict[str, int]:
        return {**self.reader.position, "given": self.num_given}

    def seek(self, position: dict[str, int]) -> None:
        self.num_given = position["given"]
        self.reader.seek({name: value for name, value in position.items() if name != "given"})

    def shapes(self) -> list[tuple[int, int]]:
        return self.reader.shapes()

    def next_step(self) -> Any:
        self.on_step(self.num_given)
        batch = self.reader.next_step()
        step = self.num_given
        self.num_given += 1
        if step not in self.bad_steps:
            return batch
        unseen = VOCAB - 1 - (step - self.bad_steps.start)  # another one each time: it must not be learned
        spoiled = tuple((tokens, torch.full_like(targets, unseen)) for tokens, targets in batch.micro_batches)
        return dataclasses.replace(batch, micro_batches=spoiled)


def spiked(
    tmp_path: Path,
    *,
    rollback: bool,
    steps: int = 45,
    bad_step: int | range = 33,
    on_step: Callable[[int], None] = lambda step: None,
    **changes: Any,
) -> Outcome:
    training = tiny_training(
        tiny_model(),
        wrap=lambda reader: Poisoned(reader, bad_step, on_step),
        fingerprint={"steps": 0},
        **{"max_steps": steps, "loss_spike_rollback": rollback, "lr_decay": "none", **changes},
    )
    return train(base_context(tmp_path), training)


def test_a_loss_spike_is_undone_and_training_goes_on_more_slowly(tmp_path: Path) -> None:
    outcome = spiked(tmp_path, rollback=True)
    assert outcome.state.rollbacks == (33,)
    assert outcome.state.rate_scale == 0.5
    rates = {point.step: point.learning_rate for point in outcome.state.losses}
    assert rates[42] == pytest.approx(rates[40] / 2)
    assert any("is a spike; back to the last snapshot" in message for message in warnings(tmp_path))


@pytest.mark.parametrize("saved_at", [32, 34, 40, 41])
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon", "device_batch_size": 2, "grad_accum_steps": 2}]
)
def test_a_run_with_rollback_goes_on_bit_for_bit_wherever_it_was_stopped(
    tmp_path: Path, saved_at: int, changes: dict[str, Any]
) -> None:
    def ask_then_die(step: int) -> None:
        if step == saved_at - 1:
            (tmp_path / "killed/stages/base/checkpoint_now").touch()
        if step == saved_at + 1:
            raise Killed

    whole = spiked(tmp_path / "whole", rollback=True, **changes)
    with pytest.raises(Killed):
        spiked(tmp_path / "killed", rollback=True, on_step=ask_then_die, **changes)
    resumed = spiked(tmp_path / "killed", rollback=True, **changes)
    assert resumed.state.rollbacks == whole.state.rollbacks == (33,)
    assert train_losses(resumed) == train_losses(whole)
    names = [tmp_path / name / "base/resume_checkpoint/model.safetensors" for name in ("whole", "killed")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_checkpoint_does_not_take_the_place_of_weights_whose_loss_was_seen(tmp_path: Path) -> None:
    """What is wrong with step 33 is known only at step 40; a save between must not make those weights the good ones."""
    plain = spiked(tmp_path / "plain", rollback=True, checkpoint_every=1000)
    saving = spiked(tmp_path / "saving", rollback=True, checkpoint_every=1)
    assert train_losses(saving) == train_losses(plain)


def warnings(tmp_path: Path) -> list[str]:
    return [e["message"] for e in read_events(tmp_path, "log") if e["level"] == "warning"]


def test_without_rollback_a_spike_is_told_once_and_trained_on(tmp_path: Path) -> None:
    outcome = spiked(tmp_path, rollback=False, bad_step=range(33, 36))
    state = outcome.state
    assert (state.rollbacks, state.loss_spikes, state.rate_scale) == ((), (34,), 1.0)
    assert (state.step, state.watched.last_spike, state.watched.num_lost) == (45, 35, 0)
    (told,) = warnings(tmp_path)
    losses = {point.step: point.train_loss or 0.0 for point in state.losses}
    assert told.startswith(f"step 34: loss {losses[34]:.3f} is a spike, the running mean is ")
    assert losses[34] > losses[33] * 2 and "base.loss_spike_rollback" in told


MEAN_IS_HALFWAY = 14
"""Steps that the running mean takes from the lowest loss to over half of the way back: 1 - 0.95 ** 14 > 0.5."""


def blown_up(tmp_path: Path, bad_steps: range, stop: int | None = None) -> Outcome:
    """A training whose loss is far too large in these steps; stopped, if at all, by a SIGTERM in step `stop`."""
    model, context = tiny_model(), base_context(tmp_path)
    jump = Jump(model, bad_steps)

    def on_step(step: int) -> None:
        jump(step)
        context.stopping = step == stop

    training = tiny_training(
        model,
        wrap=lambda reader: Poisoned(reader, -1, on_step),
        fingerprint={"steps": 0},
        max_steps=90,
    )
    return train(context, training)


def test_jumps_far_apart_are_events_of_their_own(tmp_path: Path) -> None:
    assert blown_up(tmp_path, range(30, 90, CALM_STEPS + 1)).state.loss_spikes == (31, 52, 73)
    assert len(warnings(tmp_path)) == 3


def test_a_loss_that_jumps_up_and_down_is_told_once(tmp_path: Path) -> None:
    assert blown_up(tmp_path, range(30, 40, 3)).state.loss_spikes == (31,)


@pytest.mark.parametrize("stop", [None, 40])
def test_a_training_that_diverges_is_ended(tmp_path: Path, stop: int | None) -> None:
    if stop is not None:
        with pytest.raises(Interrupted):
            blown_up(tmp_path, range(33, 90), stop)
    last = 33 + MEAN_IS_HALFWAY + DIVERGED_STEPS - 1
    with pytest.raises(ContractError, match=f"for {DIVERGED_STEPS} steps up to step {last} ") as caught:
        blown_up(tmp_path, range(33, 90))
    assert (caught.value.code, caught.value.param) == (Code.INVALID_VALUE, "learning_rate")
    assert [event["step"] for event in read_events(tmp_path, "progress")][-1] == last - 1
    assert sum("is a spike" in message for message in warnings(tmp_path)) == 1


def test_a_training_that_recovers_is_not_ended(tmp_path: Path) -> None:
    """Its mean is back below half of the way after some steps, and was over it for fewer than those that end a training."""
    state = blown_up(tmp_path, range(33, 33 + MEAN_IS_HALFWAY + 2)).state
    assert (state.step, state.loss_spikes, state.watched.num_lost) == (90, (34,), 0)


def test_the_guard_is_the_only_judge_where_there_is_one(tmp_path: Path) -> None:
    state = spiked(tmp_path, rollback=True).state
    assert (state.rollbacks, state.loss_spikes, state.watched) == ((33,), (), Watched())


def watched_state(folder: Path, stops: tuple[int, ...], lag: int) -> TrainingState:
    """What the last checkpoint holds of a training that was stopped behind these steps."""
    for stop in (*stops, None):
        training = tiny_training(
            tiny_model(),
            wrap=lambda reader: Poisoned(reader, range(33, 38)),
            fingerprint={"steps": 0},
            max_steps=45,
            lr_decay="none",
            log_every=4,
        )
        context = base_context(folder)
        trainer = Trainer(context, training, lag=lag)
        while trainer.state.step < (stop or 0):
            trainer._step()
        context.stopping = stop is not None
        with pytest.raises(Interrupted) if stop else nullcontext():
            trainer.run()
    point = load_resume(folder / "base/resume_checkpoint")
    assert point is not None
    return point.state.model_copy(update={"elapsed_seconds": 0.0})


@pytest.mark.parametrize("lag", [0, 1])
def test_what_is_watched_goes_on_bit_for_bit_where_it_was_stopped(tmp_path: Path, lag: int) -> None:
    whole = watched_state(tmp_path / "whole", (), lag)
    parts = watched_state(tmp_path / "parts", (2, 30, 35, 40), lag)
    assert whole == parts
    assert whole.loss_spikes == (34,) and whole.watched.last_spike == 37
    assert len(warnings(tmp_path / "parts")) == 1  # the event is one, though a stop lies in it


def broken(tmp_path: Path, *, again: bool) -> Outcome:
    """A training whose weights are no longer finite from step 33 on, once or each time they are mended."""
    model = tiny_model()

    def spoil(step: int) -> None:
        if step == 33 or (again and step > 33):
            with torch.no_grad():
                model.model.norm.weight.fill_(torch.inf)

    training = tiny_training(
        model,
        wrap=lambda reader: Poisoned(reader, -1, spoil),
        fingerprint={},
        max_steps=90,
        loss_spike_rollback=True,
    )
    return train(base_context(tmp_path), training)


def test_weights_that_are_not_finite_are_put_back_before_training_is_given_up(tmp_path: Path) -> None:
    outcome = broken(tmp_path, again=False)
    assert outcome.state.rollbacks == (33,)
    assert outcome.state.num_nonfinite_steps == 40 - 33 + 1
    assert outcome.state.losses[-1].train_loss is not None


def test_what_no_rollback_puts_right_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="not finite in 13 steps in a row, the last being step 46"):
        broken(tmp_path, again=True)
