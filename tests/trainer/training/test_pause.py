"""`stop_after_steps` ends a stage early with a report, and leaves nothing behind in the training that goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.manifest import Manifest
from picochat_trainer.training.checkpoint import load_resume
from picochat_trainer.training.loop import train
from picochat_trainer.training.validation import Validation, Validator
from support.trainings import base_context, tiny_model, tiny_training


def falling() -> Validator:
    """By the weights alone, as a real one: a validation more or less changes no other."""
    return lambda model: Validation(loss=float(model.model.norm.weight.detach().square().sum()))


def test_it_stops_on_the_schedule_of_the_whole_training(tmp_path: Path) -> None:
    context = base_context(tmp_path)
    outcome = train(context, tiny_training(tiny_model(), falling(), stop_after_steps=5))
    whole = train(base_context(tmp_path / "whole"), tiny_training(tiny_model(), falling()))
    assert (outcome.state.step, outcome.state.stop_reason) == (5, "stop_after_steps")
    rates = [point.learning_rate for point in outcome.state.losses]
    assert rates == [point.learning_rate for point in whole.state.losses][:5]
    assert outcome.state.losses[-1].val_loss is not None  # so that a report has numbers
    assert not context.scratch_folders
    assert (tmp_path / "base/resume_checkpoint").is_dir()


@pytest.mark.parametrize("stop", [2, 5, 8])
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9, "early_stop_patience": 3, "eval_every": 2}])
def test_without_it_training_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, stop: int, changes: dict[str, Any]
) -> None:
    def run(name: str, **more: Any) -> Any:
        training = tiny_training(tiny_model(), falling(), {"one": 1}, **changes, **more)
        return train(base_context(tmp_path / name), training)

    whole = run("whole")
    run("parts", stop_after_steps=stop)
    resumed = run("parts")
    assert resumed.state.losses == whole.state.losses
    assert (resumed.state.best_step, resumed.state.stop_reason) == (
        whole.state.best_step,
        whole.state.stop_reason,
    )
    for name in ("resume_checkpoint", "best_checkpoint"):
        files = [tmp_path / run / "base" / name / "model.safetensors" for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_the_checkpoint_knows_nothing_of_the_validation_for_the_report(tmp_path: Path) -> None:
    train(base_context(tmp_path), tiny_training(tiny_model(), falling(), stop_after_steps=2))
    saved = load_resume(tmp_path / "base/resume_checkpoint")
    assert saved is not None
    assert (saved.state.step, saved.state.best_step, saved.state.stop_reason) == (2, None, None)
    assert (tmp_path / "base/best_checkpoint").is_dir()


def test_a_further_stop_goes_on_from_the_one_before(tmp_path: Path) -> None:
    for stop in (3, 6, 6):
        training = tiny_training(tiny_model(), falling(), {"one": 1}, stop_after_steps=stop)
        assert train(base_context(tmp_path), training).state.step == stop


def test_a_stop_past_the_end_is_the_end(tmp_path: Path) -> None:
    outcome = train(base_context(tmp_path), tiny_training(tiny_model(), stop_after_steps=99))
    assert (outcome.state.step, outcome.state.stop_reason) == (12, "max_steps")


def test_the_stage_is_done_and_the_same_command_without_it_ends_with_equal_bytes(
    new_run: Callable[[str], Path], finish_stage: Callable[..., int], undisturbed_run: Path
) -> None:
    run_dir = new_run("paused")
    assert finish_stage(run_dir, stop_after_steps=7) == 0
    first = Manifest.model_validate_json((run_dir / "stages/base/manifest.json").read_text())
    report = json.loads((run_dir / "base/train_report.json").read_text())
    assert (report["stop_reason"], report["num_steps"]) == ("stop_after_steps", 7)
    assert not any(output.path.startswith("base/resume_checkpoint") for output in first.outputs)
    assert finish_stage(run_dir) == 0
    for name in ("base/checkpoint", "base/best_checkpoint"):
        files = [folder / name / "model.safetensors" for folder in (run_dir, undisturbed_run)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert not (run_dir / "base/resume_checkpoint").exists()
    last = Manifest.model_validate_json((run_dir / "stages/base/manifest.json").read_text())
    assert last.fingerprint != first.fingerprint  # so a local run does not take the early end for the whole
