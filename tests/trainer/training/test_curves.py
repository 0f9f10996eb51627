"""Curves as data and as a picture, and as TensorBoard's event files."""

import csv
import sys
from pathlib import Path

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.layout import Kind, kind_of
from picochat_trainer.training.checkpoint import LossPoint
from picochat_trainer.training.curves import csv_text, draw, write_curves
from picochat_trainer.training.loop import train
from support.trainings import base_context, tiny_model, tiny_training

POINTS = [
    LossPoint(step=1, train_loss=3.5, learning_rate=0.01, grad_norm=2.0),
    LossPoint(step=2, train_loss=3.0, learning_rate=0.02, grad_norm=1.0, val_loss=3.2, val_loss_stderr=0.1),
]
PNG = b"\x89PNG\r\n\x1a\n"


def test_the_data_has_a_row_per_point_and_empty_cells_for_what_was_not_measured() -> None:
    rows = list(csv.DictReader(csv_text(POINTS).splitlines()))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert (rows[0]["val_loss"], rows[1]["val_loss"], rows[1]["val_loss_stderr"]) == ("", "3.2", "0.1")


def test_equal_curves_give_equal_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_curves(POINTS, tmp_path / f"{name}.csv", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_picture_draws_both_losses_with_the_error_of_validation() -> None:
    loss, rate, norm = draw(POINTS).get_axes()
    train_line, val_line = (
        line for line in loss.get_lines() if line.get_label() in ("training", "validation")
    )
    assert list(train_line.get_ydata()) == [3.5, 3.0] and list(val_line.get_ydata()) == [3.2]
    assert len(loss.containers) == 1  # the error bars
    assert list(rate.get_lines()[0].get_ydata()) == [0.01, 0.02]
    assert list(norm.get_lines()[0].get_ydata()) == [2.0, 1.0]


def test_curves_without_points_are_still_drawn(tmp_path: Path) -> None:
    write_curves([], tmp_path / "a.csv", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_the_files_of_curves_are_reports_and_event_files_logs() -> None:
    assert kind_of(f"base/{layout.CURVES}") is kind_of(f"base/{layout.CURVES_PNG}") is Kind.REPORT
    assert kind_of(f"base/{layout.TENSORBOARD}/events.out.tfevents.1.host") is Kind.LOG


@pytest.mark.filterwarnings("ignore")  # of TensorBoard's own imports
def test_tensorboard_gets_the_numbers_of_the_events(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    context = base_context(tmp_path)
    outcome = train(context, tiny_training(tiny_model(), tensorboard=True))
    found = accumulator.EventAccumulator(str(tmp_path / "base/tensorboard"))
    found.Reload()
    assert {"train_loss", "val_loss", "lr", "grad_norm"} <= set(found.Tags()["scalars"])
    values = [event.value for event in found.Scalars("train_loss")]
    assert values == pytest.approx([point.train_loss for point in outcome.state.losses])
    assert "base/tensorboard" in context.outputs


def test_tensorboard_keeps_the_step_that_a_resumed_training_goes_on_from(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for stop in (5, None):
        training = tiny_training(
            tiny_model(), fingerprint={"one": 1}, tensorboard=True, stop_after_steps=stop
        )
        train(base_context(tmp_path), training)
    found = accumulator.EventAccumulator(str(tmp_path / "base/tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("train_loss")] == list(range(1, 13))


def test_tensorboard_that_is_not_installed_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ContractError, match=r"picochat\[monitor\]") as caught:
        train(base_context(tmp_path), tiny_training(tiny_model(), tensorboard=True))
    assert caught.value.code is Code.MISSING_DEPENDENCY
    assert not (tmp_path / "base/resume_checkpoint").exists()
