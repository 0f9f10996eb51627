import pytest
from picochat_trainer.training.checkpoint import LossPoint
from picochat_trainer.training.diagnosis import loss_diagnostics, loss_table


def curve(*points: tuple[float, float]) -> list[LossPoint]:
    """(train loss, validation loss) at steps 1, 2, ..."""
    return [LossPoint(step=i, train_loss=t, val_loss=v) for i, (t, v) in enumerate(points, 1)]


@pytest.mark.parametrize(
    ("points", "status"),
    [
        (curve((3, 3), (2, 2.1)), "stable"),
        (curve((3, 3), (1, 2.2)), "watch-gap"),
        (curve((3, 3), (2.9, 3.3)), "watch-val-regression"),
        (curve((3, 3), (2, 2.5), (1, 2.9)), "memorization-risk"),
        ([], "unknown"),
    ],
)
def test_the_curves_get_their_word(points: list[LossPoint], status: str) -> None:
    assert loss_diagnostics(points)["status"] == status


def test_the_diagnosis_names_the_best_step() -> None:
    found = loss_diagnostics(curve((3, 3), (2, 2.5), (1, 2.9)))
    assert (found["best_step"], found["best_val_loss"]) == (2, 2.5)
    assert found["gap"] == pytest.approx(1.9)
    assert found["regression"] == pytest.approx(0.4)


def test_the_table_has_the_validations_and_never_loses_the_last() -> None:
    points = [LossPoint(step=s, train_loss=1.0, val_loss=1.0 if s % 2 else None) for s in range(1, 402)]
    table = loss_table(points)
    assert len(table) <= 2 + 41 + 1
    assert table[-1].startswith("| 401 |")
