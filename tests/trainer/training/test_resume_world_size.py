"""A training by FSDP2 that goes on with twice, or half, as many ranks: its shards are cut anew, its global batch is the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.exit_codes import StageExit
from picochat_trainer.training.checkpoint import load_weights
from support.checkpoints import RESUME
from torch import Tensor, testing

pytestmark = pytest.mark.slow

ROWS = 4  # of a micro-batch, over all ranks
LAST, STOP = 12, 7
# Sums over ranks add up in another order; ranks of four get unequal parts of matrices with 18 and 21 rows.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 2e-5, 1e-4
SETTINGS: dict[str, Any] = {
    "model": {"n_layer": 2, "n_head": 3, "n_embd": 18, "mlp_hidden": 21, "sequence_len": 32},
    "max_steps": LAST,
    "precision": "float32",
    "grad_accum_steps": 2,
    "ema_decay": 0.9,
    "optimizer": "muon",
    "learning_rate": 1e-3,
    "canary_count": 0,
    "sample_tokens": 0,
}
RunStage = Callable[..., int]


def train(finish_stage: RunStage, run_dir: Path, num_ranks: int, **changes: Any) -> None:
    code = finish_stage(
        run_dir,
        nproc=num_ranks,
        strategy="fsdp",
        device_batch_size=ROWS // num_ranks,
        **{**SETTINGS, **changes},
    )
    assert code == StageExit.DONE, (run_dir / "stages/base/log.txt").read_text()[-3000:]


@pytest.fixture(scope="module")
def one(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory, finish_stage: RunStage) -> Path:
    """One process that nothing stopped."""
    run_dir = Path(shutil.copytree(prepared_run, tmp_path_factory.mktemp("one") / "run"))
    train(finish_stage, run_dir, 1)
    return run_dir


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_fsdp_goes_on_with_another_number_of_ranks(
    before: int, after: int, one: Path, new_run: Callable[[str], Path], finish_stage: RunStage
) -> None:
    run_dir = new_run("changed")
    train(finish_stage, run_dir, before, stop_after_steps=STOP)
    assert num_shards(run_dir) == before
    train(finish_stage, run_dir, after, stop_after_steps=STOP + 2)
    assert num_shards(run_dir) == after
    train(finish_stage, run_dir, after)
    said = log(run_dir)
    assert f"resumed from step {STOP}" in said
    assert f"num_ranks: the checkpoint has {before}, this job has {after}" in said
    assert losses(run_dir) == pytest.approx(losses(one), abs=LOSS_TOLERANCE)
    testing.assert_close(weights(run_dir), weights(one), rtol=0, atol=WEIGHT_TOLERANCE)


def num_shards(run_dir: Path) -> int:
    return len(list((run_dir / RESUME / "shards").iterdir()))


def log(run_dir: Path) -> str:
    return (run_dir / "stages/base/events.jsonl").read_text()


def losses(run_dir: Path) -> list[float]:
    points = json.loads((run_dir / "base/train_report.json").read_text())["losses"]
    assert [point["step"] for point in points] == list(range(1, LAST + 1))
    return [value for point in points for value in (point["train_loss"], point.get("val_loss", 0.0))]


def weights(run_dir: Path) -> dict[str, Tensor]:
    return load_weights(run_dir / "base/checkpoint")[2]
