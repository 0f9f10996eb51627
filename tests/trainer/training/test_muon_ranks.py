"""Muon, AdamW, the running mean and the spike guard on two and eight ranks, beside one process with the whole batch.

Eight ranks are more than there are matrices in their model, and than rows in some of them.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.ema import Ema
from picochat_trainer.training.muon import Muon
from picochat_trainer.training.optim import load_optimizer_tensors, make_optimizer, optimizer_tensors
from picochat_trainer.training.spikes import SpikeGuard
from support.forks import run_ranks
from torch import Tensor
from torch.distributed.tensor import DTensor

NUM_STEPS = 4
TOLERANCE = 2e-4
"""Of weights after the steps, at a rate of 0.01: gradients are summed in another order, which products magnify."""
CONFIG = BaseConfig(learning_rate=0.01, weight_decay=0.1, optimizer="muon", precision="float32")
# 14 matrices, some with an odd number of rows for a rank.
MODEL = ModelConfig(n_layer=2, n_head=3, n_kv_head=1, n_embd=12, sequence_len=8, mlp_hidden=21)


@dataclass
class Result:
    """What one rank ends with."""

    weights: dict[str, Tensor]
    mean: dict[str, Tensor]
    momentum: dict[str, Tensor]
    num_orthogonalized: int
    spikes: list[int | None]


def batch(step: int) -> Tensor:
    return torch.randint(30, (8, 9), generator=torch.Generator().manual_seed(step))


def train(kind: str, rank: int, num_ranks: int, num_layers: int) -> Result:
    torch.manual_seed(0)
    model = GPT(MODEL.model_copy(update={"n_layer": num_layers}), 30)
    model.init_weights(1)
    distributed.shard(model, "cpu", "fsdp" if kind == "fsdp" else "ddp")
    optimizer = make_optimizer(model, CONFIG, num_ranks=num_ranks)
    ema = Ema(model, 0.9)
    guard = SpikeGuard(model, optimizer, saved={}, ema=ema)
    muon = optimizer.parts[1]
    assert isinstance(muon, Muon)
    spikes = []
    for step in range(NUM_STEPS):
        tokens = batch(step)[rank::num_ranks]
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        if kind == "ddp":
            for parameter in model.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad /= num_ranks
        # Only the second rank sees the spike in its own share.
        guard.add(loss / num_ranks + (100.0 if step == 2 and rank == num_ranks - 1 else 0.0))
        found = guard.judge(step + 8, 4.0)
        spikes.append(found.spike_step)
        if found.spike_step is None:
            optimizer.step(skip=torch.tensor(float(step == 1)))
        optimizer.zero_grad()
        ema.update()
        # A checkpoint in between: the state as named tensors, each placed as its parameter.
        state = {name: value.clone() for name, value in optimizer_tensors(optimizer, model).items()}
        load_optimizer_tensors(optimizer, model, state)
    with ema.applied():
        mean = whole(model.state_dict())
    momentum = {n: v for n, v in optimizer_tensors(optimizer, model).items() if n.startswith("momentum")}
    assert all(isinstance(value, DTensor) is (kind == "fsdp") for value in momentum.values())
    return Result(
        weights=whole(model.state_dict()),
        mean=mean,
        momentum=whole(momentum),
        num_orthogonalized=muon.num_orthogonalized,
        spikes=spikes,
    )


def whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in tensors.items()
    }


def work(rank: int, num_ranks: int, num_layers: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", num_ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks)
    for kind in ("ddp", "fsdp"):
        torch.save(vars(train(kind, rank, num_ranks, num_layers)), f"{folder}/{kind}.{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a normal exit


def trained(folder: Path, num_ranks: int, num_layers: int) -> dict[str, Result]:
    run_ranks(work, (num_ranks, num_layers, str(folder)), num_ranks)
    found = {path.stem: Result(**torch.load(path)) for path in folder.glob("*.pt")}
    return {"one": train("one", 0, 1, num_layers), **found}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return trained(tmp_path_factory.mktemp("ranks"), 2, 2)


def assert_ends_alike(found: Result, wanted: Result, what: str) -> None:
    mine, others = getattr(found, what), getattr(wanted, what)
    assert mine.keys() == others.keys()
    for name, value in others.items():
        assert torch.allclose(mine[name], value, rtol=0, atol=TOLERANCE), name


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("what", ["weights", "mean", "momentum"])
def test_two_ranks_end_where_one_process_ends(results: dict[str, Result], kind: str, what: str) -> None:
    for rank in range(2):
        assert_ends_alike(results[f"{kind}.{rank}"], results["one"], what)


@pytest.mark.slow
def test_more_ranks_than_matrices_and_rows_end_there_too(tmp_path: Path) -> None:
    results = trained(tmp_path, 8, 1)
    for kind in ("ddp", "fsdp"):
        ranks = [results[f"{kind}.{rank}"] for rank in range(8)]
        assert [found.num_orthogonalized for found in ranks] == [3] * 7 + [0]
        for found in ranks:
            assert found.spikes == results["one"].spikes
            for what in ("weights", "mean", "momentum"):
                assert_ends_alike(found, results["one"], what)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_ranks_end_with_equal_bits(results: dict[str, Result], kind: str) -> None:
    first, second = results[f"{kind}.0"], results[f"{kind}.1"]
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_no_matrix_is_orthogonalised_twice(results: dict[str, Result], kind: str) -> None:
    """14 matrices in each of three steps: one was a spike; a skipped one costs its products all the same."""
    counts = [results[f"{kind}.{rank}"].num_orthogonalized for rank in range(2)]
    assert sum(counts) == results["one"].num_orthogonalized == 14 * (NUM_STEPS - 1)
    assert counts == [21, 21]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_all_ranks_see_the_spike_of_one(results: dict[str, Result], kind: str) -> None:
    assert [results[f"{kind}.{rank}"].spikes for rank in range(2)] == [[None, None, 10, None]] * 2
    assert results["one"].spikes == [None, None, 10, None]
