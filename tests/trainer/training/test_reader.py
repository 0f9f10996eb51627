import numpy as np
import pytest
import torch
from picochat_contract.errors import Code, ContractError
from picochat_trainer.training.reader import StepBatch, WindowReader

TOKENS = np.arange(1000, dtype=np.uint16)
T = 16


def reader(rows: int = 4, accum: int = 1, rank: int = 0, world_size: int = 1, seed: int = 3) -> WindowReader:
    return WindowReader(
        TOKENS,
        sequence_len=T,
        device_batch_size=rows,
        grad_accum_steps=accum,
        rank=rank,
        world_size=world_size,
        seed=seed,
    )


def starts(batch: StepBatch) -> list[int]:
    return [int(row[0]) for tokens_BT, _ in batch.micro_batches for row in tokens_BT]


def test_targets_are_the_next_tokens() -> None:
    [(tokens_BT, targets_BT)] = reader().next_step().micro_batches
    assert tokens_BT.shape == targets_BT.shape == (4, T)
    assert torch.equal(targets_BT, tokens_BT + 1)  # the text is 0, 1, 2, ...


def test_an_epoch_visits_every_window_once_and_the_next_is_cut_elsewhere() -> None:
    source = reader(rows=1)
    first: list[int] = []
    while source.position["epoch"] == 0 or not first:
        first += starts(source.next_step())
    *epoch, next_start = first
    assert len(epoch) in (61, 62) and len(set(epoch)) == len(epoch)
    assert len({start % T for start in epoch}) == 1
    assert next_start % T != epoch[0] % T


def test_ranks_share_the_windows_of_one_process_with_twice_the_rows() -> None:
    whole = reader(rows=4, accum=2)
    halves = [reader(rows=2, accum=2, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(40):  # over the end of an epoch
        parts = [starts(half.next_step()) for half in halves]
        assert set(parts[0]).isdisjoint(parts[1])
        assert sorted(parts[0] + parts[1]) == sorted(starts(whole.next_step()))


def test_the_number_of_targets_counts_all_ranks_and_micro_batches() -> None:
    assert reader(rows=2, accum=3, world_size=2).next_step().num_targets == 2 * 3 * 2 * T


def test_a_reader_goes_on_exactly_where_another_stopped() -> None:
    source = reader()
    for _ in range(23):  # into the second epoch
        source.next_step()
    other = reader()
    other.seek(source.position)
    assert source.position["epoch"] == 1
    assert [starts(source.next_step()) for _ in range(20)] == [starts(other.next_step()) for _ in range(20)]


def test_another_seed_reads_in_another_order() -> None:
    assert starts(reader(seed=1).next_step()) != starts(reader(seed=2).next_step())


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ContractError, match="needs at least 33") as caught:
        WindowReader(TOKENS[:32], sequence_len=T, device_batch_size=1)
    assert caught.value.code == Code.CORPUS_TOO_SMALL
