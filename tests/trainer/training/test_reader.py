from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import train_tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.packing import pack
from picochat_trainer.training.reader import Batching, PackedReader, RowReader, StepBatch, WindowReader
from picochat_trainer.training.split import split_store
from picochat_trainer.training.tokens import ArrayTokens

TOKENS = ArrayTokens(np.arange(1000, dtype=np.uint16))
BYTES = Tokenizer(train_tokenizer(TokenizerConfig(type="byte"), []), digest="")
T = 16

MakeTokens = Callable[[Path, list[str]], TokenStore]
MakeReader = Callable[..., RowReader]


def batching(
    rows: int = 4, accum: int = 1, rank: int = 0, world_size: int = 1, seed: int = 3, length: int = T
) -> Batching:
    return Batching(
        sequence_len=length,
        device_batch_size=rows,
        grad_accum_steps=accum,
        rank=rank,
        world_size=world_size,
        seed=seed,
    )


def reader(**settings: int) -> WindowReader:
    return WindowReader(TOKENS, batching(**settings))


@pytest.fixture(params=["memory", "sharded", "packed"])
def make_reader(request: pytest.FixtureRequest, tmp_path: Path, make_tokens: MakeTokens) -> MakeReader:
    """A reader in each mode over 60 documents of which each begins with its own letters."""
    store = make_tokens(tmp_path, [f"{i:03d} " * (3 + 5 * (i % 7)) for i in range(60)])
    split = split_store(store, val_fraction=0.2, mode="document", seed=1)

    def make(**settings: int) -> RowReader:
        shared = batching(**settings)
        if request.param == "packed":
            return PackedReader(split.space, pack(split.train, T + 1, 1), shared, pad_id=store.bos_id)
        tokens = split.train_tokens
        return WindowReader(ArrayTokens(tokens.to_array()) if request.param == "memory" else tokens, shared)

    return make


def starts(batch: StepBatch) -> list[int]:
    return [int(row[0]) for tokens_BT, _ in batch.micro_batches for row in tokens_BT]


def rows(batches: list[StepBatch]) -> list[list[int]]:
    """Rows of a step in the global order: micro-batch, rank, row."""
    micro = zip(*(batch.micro_batches for batch in batches), strict=True)
    return [
        torch.cat([tokens, targets[:, -1:]], 1)[row].tolist()
        for ranks in micro
        for tokens, targets in ranks
        for row in range(len(tokens))
    ]


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


def test_ranks_share_the_rows_of_one_process_with_twice_the_rows(make_reader: MakeReader) -> None:
    whole = make_reader(rows=4, accum=2)
    halves = [make_reader(rows=2, accum=2, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(40):  # over the end of an epoch
        steps = [half.next_step() for half in halves]
        assert rows(steps) == rows([whole.next_step()])
        assert [step.shapes for step in steps] == [[(2, T)] * 4] * 2


def test_the_sequence_goes_on_over_a_change_of_world_size(make_reader: MakeReader) -> None:
    whole = make_reader(rows=4)
    expected = [rows([whole.next_step()]) for _ in range(88)]
    found: list[list[list[int]]] = []
    position = make_reader(rows=4).position
    for world_size in (1, 2, 1, 4):
        ranks = [make_reader(rows=4 // world_size, rank=r, world_size=world_size) for r in range(world_size)]
        for rank in ranks:
            rank.seek(position)
        found += [rows([rank.next_step() for rank in ranks]) for _ in range(22)]
        assert all(rank.position == ranks[0].position for rank in ranks)
        position = ranks[0].position
    assert found == expected
    assert position["epoch"] > 0


def test_the_number_of_targets_counts_all_ranks_and_micro_batches(make_reader: MakeReader) -> None:
    assert reader(rows=2, accum=3, world_size=2).next_step().num_targets == 2 * 3 * 2 * T
    steps = [make_reader(rows=2, accum=3, rank=rank, world_size=2).next_step() for rank in (0, 1)]
    targets = sum(int((t != IGNORE_INDEX).sum()) for step in steps for _, t in step.micro_batches)
    assert [step.num_targets for step in steps] == [targets, targets]


def test_a_reader_goes_on_exactly_where_another_stopped(make_reader: MakeReader) -> None:
    source, other = make_reader(), make_reader()
    for _ in range(60):  # into a later epoch
        source.next_step()
    other.seek(source.position)
    assert source.position["epoch"] >= 1
    assert [rows([source.next_step()]) for _ in range(20)] == [rows([other.next_step()]) for _ in range(20)]


def test_another_seed_reads_in_another_order(make_reader: MakeReader) -> None:
    assert rows([make_reader(seed=1).next_step()]) != rows([make_reader(seed=2).next_step()])


def test_the_first_steps_mix_the_whole_text(make_reader: MakeReader) -> None:
    source = make_reader(rows=16)
    seen = [BYTES.decode([id for id in row if id >= 0]) for row in rows([source.next_step()])]
    documents = {int(part) for row in seen for part in row.split() if len(part) == 3}
    assert min(documents) < 20 and max(documents) >= 40


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ContractError, match="needs at least 33") as caught:
        WindowReader(ArrayTokens(TOKENS.tokens[:32]), batching(rows=1))
    assert caught.value.code == Code.CORPUS_TOO_SMALL


def test_too_few_packed_rows_are_refused(tmp_path: Path, make_tokens: MakeTokens) -> None:
    split = split_store(make_tokens(tmp_path, ["ab", "cd"]), val_fraction=0.5, mode="document", seed=1)
    with pytest.raises(ContractError, match="at least 2 are needed") as caught:
        PackedReader(split.space, pack(split.train, T + 1, 1), batching(), pad_id=0)
    assert caught.value.code == Code.CORPUS_TOO_SMALL
