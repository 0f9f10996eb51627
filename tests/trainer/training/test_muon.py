"""Muon in one process: as PyTorch's own, skipped where it is told to, and how ranks would share the work."""

import pytest
import torch
from picochat_trainer.training import muon
from picochat_trainer.training.muon import Muon
from picochat_trainer.training.muon_sharing import num_rows, shares
from picochat_trainer.training.orthogonal import NEWTON_SCHULZ
from support.live_tensors import LiveTensors
from torch import Tensor, nn

SHAPES = [(16, 16), (4, 16), (48, 16), (16, 48), (48, 16)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(matrices: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)


def test_it_does_what_that_of_pytorch_does() -> None:
    """Products in bfloat16 in both, with the same polynomials; a stack rounds elsewhere than one matrix."""
    ours, theirs = parameters(), parameters()
    our = Muon(ours, **SETTINGS, polynomials=NEWTON_SCHULZ, dtype=torch.bfloat16)
    their = torch.optim.Muon(theirs, **SETTINGS, adjust_lr_fn="match_rms_adamw")
    for seed in range(5):
        give_gradients(ours, seed)
        give_gradients(theirs, seed)
        our.step()
        their.step()
    for start, mine, wanted in zip(parameters(), ours, theirs, strict=True):
        moved = (wanted - start).detach().norm()
        assert float((mine - wanted).detach().norm()) < 0.02 * float(moved)
        assert torch.equal(our.state[mine]["momentum_buffer"], their.state[wanted]["momentum_buffer"])


@pytest.mark.parametrize("broken", [False, True])
def test_a_skipped_step_leaves_weights_and_momentum_as_they_are(broken: bool) -> None:
    matrices = parameters()
    optimizer = Muon(matrices, **SETTINGS)
    give_gradients(matrices, 1)
    optimizer.step()
    before = [(m.detach().clone(), optimizer.state[m]["momentum_buffer"].clone()) for m in matrices]
    give_gradients(matrices, 2)
    if broken:
        matrices[1].grad = torch.full(SHAPES[1], torch.nan)
        matrices[2].grad = torch.full(SHAPES[2], torch.inf)
    optimizer.update(torch.tensor(1.0))
    for matrix, (weight, momentum) in zip(matrices, before, strict=True):
        assert torch.equal(matrix, weight)
        assert torch.equal(optimizer.state[matrix]["momentum_buffer"], momentum)


def test_a_step_that_might_have_been_skipped_is_that_of_one_that_could_not() -> None:
    one, other = parameters(), parameters()
    first, second = Muon(one, **SETTINGS), Muon(other, **SETTINGS)
    for seed in range(3):
        give_gradients(one, seed)
        give_gradients(other, seed)
        first.step()
        second.update(torch.tensor(0.0))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_steps_around_a_skipped_one_are_those_of_a_training_that_never_had_it() -> None:
    broken, sound = parameters(), parameters()
    first, second = Muon(broken, **SETTINGS), Muon(sound, **SETTINGS)
    for seed in (0, 1, 2, 3):
        give_gradients(broken, seed)
        give_gradients(sound, seed)
        if seed == 2:
            broken[1].grad = torch.full(SHAPES[1], torch.nan)
            first.update(torch.tensor(1.0))
            continue
        first.update(torch.tensor(0.0))
        second.step()
    assert all(torch.equal(a, b) for a, b in zip(broken, sound, strict=True))


def test_a_step_that_may_be_skipped_holds_no_copy_of_the_gradients() -> None:
    peaks = []
    for skip in (None, torch.tensor(0.0), torch.tensor(1.0)):
        matrices = parameters()
        optimizer = Muon(matrices, **SETTINGS)
        give_gradients(matrices, 1)
        optimizer.step()  # makes the momentum
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        with torch.no_grad(), LiveTensors([*matrices, *gradients]) as live:
            optimizer._momentum_updates(0.95, skip)
        peaks.append(live.peak)
    assert max(peaks) - peaks[0] < 64  # bytes: the numbers that decide


def test_a_matrix_without_gradient_is_told() -> None:
    matrices = parameters()
    with pytest.raises(RuntimeError, match=r"shape \(16, 16\) has none; call backward"):
        Muon(matrices, **SETTINGS).step()


def test_a_compiler_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = muon.orthogonalize_all

    def fails(matrices: list[Tensor], polynomials: object, *, compiled: bool) -> list[Tensor]:
        if compiled:
            raise RuntimeError("no compiler here")
        return plain(matrices, NEWTON_SCHULZ, compiled=False)

    monkeypatch.setattr(muon, "orthogonalize_all", fails)
    matrices = parameters()
    optimizer = Muon(matrices, **SETTINGS, compiled=True)
    give_gradients(matrices, 1)
    with pytest.warns(UserWarning, match="goes on without torch.compile: RuntimeError"):
        optimizer.step()
    assert not optimizer.compiled
    assert not torch.equal(matrices[0], parameters()[0])


def test_work_is_shared_evenly_and_each_matrix_has_one_owner() -> None:
    found = shares([(64, 64)] * 8 + [(64, 192)] * 6, 4)
    assert sorted(index for share in found for index in share) == list(range(14))
    costs = [sum(1 if index < 8 else 3 for index in share) for share in found]
    assert max(costs) - min(costs) <= 1


def test_ranks_without_a_matrix_have_an_empty_share() -> None:
    assert shares([(4, 4)], 3) == [[0], [], []]


@pytest.mark.parametrize(("total", "ranks"), [(8, 2), (7, 3), (2, 4), (1, 1)])
def test_rows_lie_as_dtensor_puts_them(total: int, ranks: int) -> None:
    chunks = [len(chunk) for chunk in torch.arange(total).chunk(ranks)]
    assert [num_rows(total, ranks, rank) for rank in range(ranks)] == chunks + [0] * (ranks - len(chunks))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_compiled_products_give_the_plain_ones_and_the_host_waits_for_nothing() -> None:
    plain, compiled = ([nn.Parameter(p.detach().cuda()) for p in parameters()] for _ in range(2))
    optimizers = [Muon(plain, **SETTINGS), Muon(compiled, **SETTINGS, compiled=True)]
    for seed in range(3):
        for matrices, optimizer in zip((plain, compiled), optimizers, strict=True):
            generator = torch.Generator().manual_seed(seed)
            for matrix in matrices:
                matrix.grad = torch.randn(matrix.shape, generator=generator).cuda()
            skip = torch.zeros((), device="cuda")
            torch.cuda.set_sync_debug_mode("error" if seed else "default")  # compiling may wait
            try:
                optimizer.update(skip)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert optimizers[1].compiled
    for one, other in zip(plain, compiled, strict=True):
        assert torch.allclose(one, other, atol=1e-3)
