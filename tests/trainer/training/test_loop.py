import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.manifest import StageJob
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training import compiled
from picochat_trainer.training.checkpoint import load_resume
from picochat_trainer.training.loop import Outcome, train
from picochat_trainer.training.reader import Batching, WindowReader
from picochat_trainer.training.resume import Training
from picochat_trainer.training.tokens import ArrayTokens
from picochat_trainer.training.validation import Validation, Validator

T, VOCAB = 16, 50
MODEL = ModelConfig(n_layer=2, n_head=2, n_embd=16, sequence_len=T)
# A text with a pattern, so that there is something to learn.
TOKENS = (np.arange(3000) * 7 % 13 + np.random.default_rng(0).integers(0, 2, 3000)).astype(np.uint16)
SETTINGS = {
    "model": MODEL,
    "max_steps": 12,
    "device_batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "eval_every": 4,
    "checkpoint_every": 100,
    "log_every": 1,
    "precision": "float32",
    "compile": "off",
}


@pytest.fixture
def model() -> GPT:
    made = GPT(MODEL, VOCAB)
    made.init_weights(1)
    return made


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, model: GPT) -> Run:
    """Train the model by settings; `validator` may be another than a fixed loss."""

    def start(validator: Validator = lambda model: Validation(loss=1.0), **changes: Any) -> Outcome:
        config = BaseConfig(**{**SETTINGS, **changes})
        batching = Batching(
            sequence_len=T,
            device_batch_size=config.device_batch_size,
            grad_accum_steps=config.grad_accum_steps,
            seed=1,
        )
        reader = WindowReader(ArrayTokens(TOKENS), batching)
        training = Training(
            model=model,
            batches=reader,
            validator=validator,
            config=config,
            fingerprint={"config": config.model_dump(mode="json")},
            best="base/best_checkpoint",
            resume="base/resume_checkpoint",
        )
        return train(StageContext(tmp_path, StageJob(stage="base", config={})), training)

    return start


def events(tmp_path: Path, type: str) -> list[dict[str, Any]]:
    lines = (tmp_path / "stages/base/events.jsonl").read_text().splitlines()
    return [event["data"] for event in map(json.loads, lines) if event["type"] == type]


def train_losses(outcome: Outcome) -> list[float]:
    return [p.train_loss for p in outcome.state.losses if p.train_loss is not None]


def test_the_loss_falls_and_everything_is_reported(run: Run, tmp_path: Path) -> None:
    outcome = run()
    losses = train_losses(outcome)
    assert losses[0] == pytest.approx(math.log(VOCAB), abs=0.3)
    assert losses[-1] < losses[0] - 0.3
    assert outcome.state.tokens_seen == 12 * 4 * T
    assert outcome.state.stop_reason == "max_steps"
    metrics = events(tmp_path, "metric")[0]["values"]
    assert set(metrics) == {"train_loss", "lr", "grad_norm", "tokens_per_second", "eta_seconds"}
    assert events(tmp_path, "progress")[-1]["step"] == 12


def test_accumulation_takes_the_same_steps_as_one_large_batch(run: Run, model: GPT, tmp_path: Path) -> None:
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    whole = train_losses(run(device_batch_size=4))
    model.load_state_dict(initial)
    for folder in (tmp_path / "base").iterdir():
        folder.rename(tmp_path / f"first_{folder.name}")
    parts = train_losses(run(device_batch_size=2, grad_accum_steps=2))
    assert parts == pytest.approx(whole, abs=1e-5)


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(
    run: Run, model: GPT, tmp_path: Path
) -> None:
    calls = 0
    weights_at: dict[int, torch.Tensor] = {}
    weight = model.model.norm.weight

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        weights_at[calls] = weight.detach().clone()
        return gradient * (math.nan if calls in (3, 4) else 1.0)

    weight.register_hook(spoil)
    outcome = run()
    assert outcome.state.num_nonfinite_steps == 2
    assert outcome.state.nonfinite_in_a_row == 0
    assert torch.equal(weights_at[3], weights_at[4]) and torch.equal(weights_at[4], weights_at[5])
    assert not torch.equal(weights_at[5], weights_at[6])
    assert len(events(tmp_path, "log")) == 2


def test_three_steps_in_a_row_without_a_finite_gradient_stop_the_training(run: Run, model: GPT) -> None:
    with torch.no_grad():
        model.model.norm.weight.fill_(math.inf)
    with pytest.raises(
        ContractError, match="3 steps in a row, the last being step 3; lower learning_rate"
    ) as e:
        run()
    assert (e.value.code, e.value.param) == (Code.INVALID_VALUE, "learning_rate")


def test_a_validation_that_is_never_finite_gives_no_checkpoint(run: Run) -> None:
    with pytest.raises(ContractError, match="no best checkpoint"):
        run(validator=lambda model: Validation(loss=math.nan))


def falling_then_rising() -> Validator:
    values = iter([3.0, 2.0, 2.5, 2.6, 2.7, 2.8])
    return lambda model: Validation(loss=next(values), bpb=1.0)


def test_early_stop_waits_for_its_patience_and_keeps_the_best(run: Run, tmp_path: Path) -> None:
    outcome = run(validator=falling_then_rising(), eval_every=2, early_stop_patience=2)
    assert outcome.state.stop_reason == "early_stop"
    assert (outcome.state.step, outcome.state.best_step) == (8, 4)
    metadata = json.loads((tmp_path / "base/best_checkpoint/metadata.json").read_text())
    assert (metadata["step"], metadata["kind"]) == (4, "best_validation")
    assert metadata["losses"]["val_loss"] == 2.0


def test_an_improvement_under_the_least_delta_does_not_count(run: Run) -> None:
    values = iter([2.0, 1.99, 1.98, 1.97])
    outcome = run(
        validator=lambda model: Validation(loss=next(values)),
        eval_every=2,
        early_stop_patience=2,
        early_stop_min_delta=0.1,
    )
    assert (outcome.state.best_step, outcome.state.step) == (2, 6)


def test_the_time_limit_ends_with_a_validated_checkpoint(run: Run, tmp_path: Path) -> None:
    outcome = run(max_minutes=1e-9)
    assert outcome.state.stop_reason == "max_minutes"
    assert outcome.state.best_step == outcome.state.step
    assert (tmp_path / "base/best_checkpoint/model.safetensors").exists()


def test_the_last_step_is_validated_also_off_the_beat(run: Run) -> None:
    outcome = run(max_steps=7, eval_every=5)
    assert [p.step for p in outcome.state.losses if p.val_loss is not None] == [5, 7]


def test_a_failed_compile_goes_on_in_eager_and_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no such instruction\nsecond line")

    monkeypatch.setattr(compiled.torch, "compile", broken)
    outcome = run(compile="on")
    assert outcome.throughput["compiled"] is False
    assert outcome.state.step == 12
    [warning] = events(tmp_path, "log")
    assert warning["level"] == "warning" and "no such instruction" in warning["message"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore"
)  # torch's compiler warns inside itself, and fails where that is an error
def test_compiled_training_gives_the_losses_of_eager(run: Run, model: GPT, tmp_path: Path) -> None:
    initial = {name: value.clone() for name, value in model.state_dict().items()}

    def real(model: GPT) -> Validation:
        tokens_BT = torch.from_numpy(TOKENS[: 3 * T].astype(np.int64)).view(3, T)
        return Validation(loss=float(model.token_losses(tokens_BT, tokens_BT).detach().mean()))

    eager = run(validator=real)
    model.load_state_dict(initial)
    for folder in (tmp_path / "base").iterdir():
        folder.rename(tmp_path / f"first_{folder.name}")
    fast = run(validator=real, compile="on")
    assert fast.throughput["compiled"] is True, events(tmp_path, "log")
    assert train_losses(fast) == pytest.approx(train_losses(eager), abs=1e-4)
    assert fast.best.val_loss == pytest.approx(eager.best.val_loss, abs=1e-4)


class Killed(BaseException):
    """Stands for a kill between the two renames of a save."""


def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(checkpoint_every=4)
    folder = tmp_path / "base/resume_checkpoint"
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    rename = Path.rename

    def kill_at_the_second(path: Path, target: Path) -> Path:
        if path.name.startswith(".resume_checkpoint.tmp"):
            raise Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", kill_at_the_second)
    with pytest.raises(Killed):
        run(checkpoint_every=4)
    resumed = load_resume(folder)
    assert resumed is not None and resumed.state.step == 8


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
    steps: int = 40,
    bad_step: int = 33,
    on_step: Callable[[int], None] = lambda step: None,
    **changes: Any,
) -> Outcome:
    made = GPT(MODEL, VOCAB)
    made.init_weights(1)
    settings = {"max_steps": steps, "loss_spike_rollback": rollback, "lr_decay": "none", **changes}
    config = BaseConfig(**{**SETTINGS, **settings})
    batching = Batching(
        sequence_len=T,
        device_batch_size=config.device_batch_size,
        grad_accum_steps=config.grad_accum_steps,
        seed=1,
    )
    training = Training(
        model=made,
        batches=Poisoned(WindowReader(ArrayTokens(TOKENS), batching), bad_step, on_step),
        validator=lambda model: Validation(loss=1.0),
        config=config,
        fingerprint={"steps": 0},
        best="base/best_checkpoint",
        resume="base/resume_checkpoint",
    )
    return train(StageContext(tmp_path, StageJob(stage="base", config={})), training)


def test_a_loss_spike_is_undone_and_training_goes_on_more_slowly(tmp_path: Path) -> None:
    outcome = spiked(tmp_path, rollback=True)
    assert outcome.state.rollbacks == (33,)
    assert outcome.state.rate_scale == 0.5
    rates = {point.step: point.learning_rate for point in outcome.state.losses}
    assert rates[35] == pytest.approx(rates[33] / 2)
    warnings = [e["message"] for e in events(tmp_path, "log") if e["level"] == "warning"]
    assert any("is a spike; back to the last snapshot" in message for message in warnings)


@pytest.mark.parametrize("saved_at", [28, 32, 33, 34, 37])
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
    """What step 32 made of the weights is known only at step 33; the save between must not make it the good state."""
    plain = spiked(tmp_path / "plain", rollback=True, checkpoint_every=1000)
    saving = spiked(tmp_path / "saving", rollback=True, checkpoint_every=1)
    assert train_losses(saving) == train_losses(plain)


def test_without_rollback_a_spike_is_trained_on(tmp_path: Path) -> None:
    assert spiked(tmp_path, rollback=False).state.rollbacks == ()


def test_the_rate_follows_the_rows_of_a_step_where_that_is_asked_for(run: Run) -> None:
    plain = run(max_steps=4, lr_decay="none", warmup_steps=0)
    assert plain.state.losses[-1].learning_rate == pytest.approx(1e-2)


def test_auto_scaling_multiplies_by_the_root_of_the_batch(run: Run) -> None:
    scaled = run(max_steps=4, lr_decay="none", warmup_steps=0, auto_lr_scaling=True, grad_accum_steps=8)
    assert scaled.state.losses[-1].learning_rate == pytest.approx(1e-2 * math.sqrt(32 / 8))


def test_muon_trains(run: Run) -> None:
    losses = train_losses(run(optimizer="muon", max_steps=30))
    assert losses[-1] < 0.8 * losses[0]


def test_a_kernel_that_the_device_has_not_is_refused(run: Run) -> None:
    with pytest.raises(ContractError, match="needs CUDA") as caught:
        run(attn_backend="flash")
    assert caught.value.code is Code.DEVICE_UNAVAILABLE
