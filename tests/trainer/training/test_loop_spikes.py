"""A loss that jumps is undone by the loop, and a stop at any step changes nothing of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_contract.errors import ContractError
from picochat_trainer.training.loop import Outcome, train
from picochat_trainer.training.reader import WindowReader
from support.trainings import VOCAB, base_context, read_events, tiny_model, tiny_training, train_losses


class Killed(BaseException):
    """Stands for a kill."""


class Poisoned:
    """Batches of a reader, of which one has targets that the model has never seen: its loss jumps."""

    def __init__(
        self, reader: WindowReader, bad_step: int, on_step: Callable[[int], None] = lambda step: None
    ) -> None:
        self.reader = reader
        self.bad_step = bad_step
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
        self.num_given += 1
        if self.num_given != self.bad_step + 1:
            return batch
        spoiled = tuple(
            (tokens, torch.full_like(targets, VOCAB - 1)) for tokens, targets in batch.micro_batches
        )
        return dataclasses.replace(batch, micro_batches=spoiled)


def spiked(
    tmp_path: Path,
    *,
    rollback: bool,
    steps: int = 45,
    bad_step: int = 33,
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
    warnings = [e["message"] for e in read_events(tmp_path, "log") if e["level"] == "warning"]
    assert any("is a spike; back to the last snapshot" in message for message in warnings)


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


def test_without_rollback_a_spike_is_trained_on(tmp_path: Path) -> None:
    assert spiked(tmp_path, rollback=False).state.rollbacks == ()


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
        max_steps=60,
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
