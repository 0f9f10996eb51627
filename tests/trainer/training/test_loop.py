import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picochat_contract.errors import Code, ContractError
from picochat_trainer.model import GPT
from picochat_trainer.training import compiled
from picochat_trainer.training.checkpoint import load_resume, load_weights
from picochat_trainer.training.loop import Outcome, train
from picochat_trainer.training.reader import StepBatch, WindowReader
from picochat_trainer.training.validation import Validation, Validator
from support.trainings import (
    MODEL,
    TOKENS,
    VOCAB,
    T,
    always_one,
    base_context,
    read_events,
    tiny_model,
    tiny_training,
    train_losses,
)


@pytest.fixture
def model() -> GPT:
    return tiny_model()


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, model: GPT) -> Run:
    """Train the model by settings; `validator` may be another than a fixed loss."""

    def start(validator: Validator = always_one, **changes: Any) -> Outcome:
        return train(base_context(tmp_path), tiny_training(model, validator, **changes))

    return start


def test_the_loss_falls_and_everything_is_reported(run: Run, tmp_path: Path) -> None:
    outcome = run()
    losses = train_losses(outcome)
    assert losses[0] == pytest.approx(math.log(VOCAB), abs=0.3)
    assert losses[-1] < losses[0] - 0.3
    assert outcome.state.tokens_seen == 12 * 4 * T
    assert outcome.state.stop_reason == "max_steps"
    metrics = read_events(tmp_path, "metric")[0]["values"]
    assert set(metrics) == {"train_loss", "lr", "grad_norm", "tokens_per_second", "eta_seconds"}
    assert read_events(tmp_path, "progress")[-1]["step"] == 12


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
    assert len(read_events(tmp_path, "log")) == 2


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


def test_a_longer_time_limit_lets_a_training_go_on_that_had_run_out_of_time(run: Run) -> None:
    same = {"fingerprint": {"one": 1}}
    assert run(max_minutes=1e-9, **same).state.step == 0
    assert run(max_minutes=1e-9, **same).state.stop_reason == "max_minutes"
    outcome = run(max_minutes=1e3, **same)
    assert (outcome.state.step, outcome.state.stop_reason) == (12, "max_steps")


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
    [warning] = read_events(tmp_path, "log")
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
    assert fast.throughput["compiled"] is True, read_events(tmp_path, "log")
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


def test_validation_and_the_best_weights_are_those_of_the_mean(run: Run, model: GPT, tmp_path: Path) -> None:
    weight = model.model.norm.weight
    seen: list[torch.Tensor] = []

    def look(model: GPT) -> Validation:
        seen.append(weight.detach().clone())
        return Validation(loss=1.0 - 0.1 * len(seen))

    run(look, ema_decay=0.9)
    best = load_weights(tmp_path / "base/best_checkpoint")[2]["model.norm.weight"]
    assert torch.equal(best, seen[-1])
    assert not torch.equal(weight, seen[-1])  # training goes on with its own weights


def test_weights_are_kept_every_so_often(run: Run, tmp_path: Path) -> None:
    run(keep_every=5)
    assert sorted(path.name for path in (tmp_path / "base/kept").iterdir()) == ["step-000005", "step-000010"]


def test_the_outcome_has_the_weights_of_the_mean(run: Run, model: GPT) -> None:
    plain = run().weights["model.norm.weight"]
    assert torch.equal(plain, model.model.norm.weight.detach())


@dataclass
class BesideANarrowRank:
    """A reader of one of two ranks, the other of which has batches of half the width."""

    reader: WindowReader

    @property
    def position(self) -> dict[str, int]:
        return self.reader.position

    def seek(self, position: dict[str, int]) -> None:
        self.reader.seek(position)

    def shapes(self) -> list[tuple[int, int]]:
        return self.reader.shapes()

    def next_step(self) -> StepBatch:
        return replace(self.reader.next_step(), shapes=[(4, T), (4, T // 2)])


def test_tokens_and_operations_are_summed_over_ranks_whose_batches_have_other_widths(
    run: Run, tmp_path: Path
) -> None:
    outcome = run(wrap=BesideANarrowRank)
    assert outcome.state.tokens_seen == outcome.throughput["tokens"] == 12 * 4 * (T + T // 2)
    narrow = 12 * MODEL.n_layer * MODEL.n_embd * T // 2  # attention over half the width
    flops = 12 * 4 * (T + T // 2) * outcome.throughput["flops_per_token"] - 12 * 4 * T // 2 * narrow
    seconds = outcome.throughput["train_seconds"]
    assert outcome.throughput["gflops_per_second"] == pytest.approx(flops / seconds / 1e9)
    speeds = [
        m["values"]["tokens_per_second"] for m in read_events(tmp_path, "metric") if "lr" in m["values"]
    ]
    assert len(speeds) == 12 and min(speeds) > 0


def test_throughput_counts_all_tokens_and_names_what_utilisation_is_a_share_of(run: Run) -> None:
    found = run(checkpoint_every=3, grad_accum_steps=2).throughput
    assert found["tokens"] == 12 * 2 * 4 * T
    assert 0 < found["tokens_per_second_with_pauses"] < found["tokens_per_second"]
    assert 0 <= found["data_wait_share"] < 1
    assert "measured in this process" in found["peak"]["source"]
    per_second = found["tokens_per_second"] * found["flops_per_token"]
    assert found["mfu"] == pytest.approx(per_second / found["peak"]["flops_per_second"])
    assert found["gflops_per_second"] == pytest.approx(per_second / 1e9)
    assert found["first_step_seconds"] > 0 and found["memory_peak_bytes"] > 1 << 20
    assert found["energy_joules"] is None and "CPU" in found["energy_note"]
