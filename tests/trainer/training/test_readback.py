"""Values of steps come in order, late where that is wanted, and skipped steps are noticed within a step or two."""

import math
from pathlib import Path

import pytest
import torch
from picochat_contract.errors import ContractError
from picochat_trainer.training.loop import Trainer
from picochat_trainer.training.readback import Readback, pack, skips
from support.trainings import base_context, read_events, tiny_model, tiny_training


def values(loss: float, norm: float = 1.0) -> torch.Tensor:
    return pack(torch.tensor(loss), torch.tensor(norm), 1)


def test_without_lag_values_come_at_once_and_with_it_a_step_later() -> None:
    for lag, expected in ((0, [[0], [1], [2]]), (1, [[], [0], [1]])):
        readback = Readback("cpu", lag)
        found = []
        for step in range(3):
            readback.push(step, values(float(step)))
            found.append([v.step for v in readback.take(everything=False)])
        assert found == expected
        assert [v.step for v in readback.take(everything=True)] == ([2] if lag else [])


def test_the_cpu_reads_at_once_and_cuda_late() -> None:
    assert (Readback("cpu")._lag, Readback("cuda:0")._lag) == (0, 1)


@pytest.mark.parametrize(
    ("loss", "norm", "finite"),
    [(1.0, 2.0, True), (math.nan, 2.0, False), (1.0, math.inf, False), (math.inf, math.nan, False)],
)
def test_an_update_is_skipped_where_loss_or_gradient_is_not_finite(
    loss: float, norm: float, finite: bool
) -> None:
    packed = values(loss, norm)
    assert bool(skips(packed)) is not finite
    readback = Readback("cpu")
    readback.push(0, packed)
    assert readback.take(everything=False)[0].is_finite is finite


def test_ranks_sum_their_shares_of_the_loss_and_keep_the_norm() -> None:
    packed = sum(pack(torch.tensor(loss), torch.tensor(3.0), 2) for loss in (0.5, 0.25))
    readback = Readback("cpu")
    assert isinstance(packed, torch.Tensor)
    readback.push(7, packed)
    [found] = readback.take(everything=False)
    assert (found.step, found.loss, found.grad_norm, found.is_finite) == (7, 0.75, 3.0, True)


def test_one_rank_that_is_not_finite_stops_the_update_of_all() -> None:
    packed = pack(torch.tensor(1.0), torch.tensor(1.0), 2) + pack(
        torch.tensor(math.nan), torch.tensor(1.0), 2
    )
    assert bool(skips(packed))


def test_late_values_abort_a_training_that_is_lost_within_two_steps(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(math.inf)
    training = tiny_training(model, log_every=100, max_steps=30)
    trainer = Trainer(base_context(tmp_path), training, lag=1)
    with pytest.raises(ContractError, match="3 steps in a row, the last being step 3"):
        trainer.run()
    assert trainer.state.step <= 4
    assert len(read_events(tmp_path, "log")) == 3
