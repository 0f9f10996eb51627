"""DDP(2) and FSDP(2) against one process by the same steps: over gloo here, and over NCCL on a machine with two GPUs."""

import json
from typing import Any

import pytest
import torch
from support.forks import run_ranks
from support.rank_steps import STEPS, work_on_devices

TOLERANCE = {"cpu": 1e-5, "cuda": 1e-4}  # nats; kernels of a GPU split their sums by the number of rows
BF16_TOLERANCE = 5e-2
NEEDS_TWO = pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason=f"NCCL needs two CUDA devices for two ranks, this machine has {torch.cuda.device_count()}",
)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_TWO])])
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp(request.param)
    run_ranks(work_on_devices, (2, str(folder), request.param), 2)
    return request.param, json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("way", ["ddp", "fsdp", "ddp, checkpointed", "fsdp, checkpointed"])
def test_two_devices_learn_what_one_learns(found: tuple[str, dict[str, Any]], way: str) -> None:
    kind, ways = found
    one, two, tolerance = ways["one"], ways[way], TOLERANCE[kind]
    assert two["sharded"] == way.startswith("fsdp")
    for name in ("losses", "val"):
        assert len(two[name]) == STEPS
        assert two[name] == pytest.approx(one[name], abs=tolerance)
    assert two["norms"] == pytest.approx(one["norms"], rel=20 * tolerance)
    assert two["weights"] == pytest.approx(one["weights"], rel=100 * tolerance)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_in_bf16_they_learn_nearly_that(found: tuple[str, dict[str, Any]], strategy: str) -> None:
    ways = found[1]
    assert ways[f"{strategy}, bf16"]["losses"] == pytest.approx(ways["one"]["losses"], abs=BF16_TOLERANCE)
