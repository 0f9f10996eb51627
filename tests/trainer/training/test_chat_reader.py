from collections import Counter
from typing import Any

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training.chat import Example
from picochat_trainer.training.chat_reader import (
    ChatReader,
    ChatValidator,
    batch_widths,
    padded_batch,
)
from picochat_trainer.training.reader import StepBatch

PAD = 0
SIZES = {"big": 64, "small": 16, "tiny": 4}


def example(line: int, category: str = "c", length: int = 8, answer: int = 3) -> Example:
    ids = tuple(5 + (line + i) % 7 for i in range(length + 1))
    mask = tuple(int(i > length - answer) for i in range(length + 1))
    named = {"category": category, "skill": category, "group": f"g{line}", "prompt": f"p{line}"}
    return Example(line=line, ids=ids, loss_mask=mask, **named)


def examples() -> list[Example]:
    made: list[Example] = []
    for category, size in SIZES.items():
        made += [example(len(made) + i, category, length=6 + (i * 7) % 40) for i in range(size)]
    return made


def reader(rows: int = 4, **changes: Any) -> ChatReader:
    settings = {"pad_id": PAD, "sequence_len": 64, "device_batch_size": rows, "seed": 1, **changes}
    return ChatReader(examples(), **settings)


def drawn(source: ChatReader) -> Counter[str]:
    """Categories of the first round."""
    return Counter(examples()[i].category for step in source._steps for i in step)


def content(batch: StepBatch) -> list[tuple[int, ...]]:
    """Rows without padding, in order."""
    rows = [row for tokens_BT, _ in batch.micro_batches for row in tokens_BT]
    return [tuple(int(id) for id in row if id != PAD) for row in rows]


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        ("uniform", {"big": 64, "small": 16, "tiny": 4}),
        ("category_sqrt", {"big": 48, "small": 24, "tiny": 12}),
        ("category_balanced", {"big": 28, "small": 28, "tiny": 28}),
    ],
)
def test_sampling_decides_the_share_of_each_category(sampling: str, shares: dict[str, int]) -> None:
    assert drawn(reader(sampling=sampling)) == shares


def test_uniform_sampling_visits_every_row_once_a_round() -> None:
    source = reader(sampling="uniform")
    assert sorted(int(i) for step in source._steps for i in step) == list(range(84))


def test_it_goes_on_exactly_where_another_stopped() -> None:
    source, other = reader(), reader()
    for _ in range(30):  # into the second round
        source.next_step()
    other.seek(source.position)
    assert source.position["round"] == 1
    for _ in range(25):
        assert content(source.next_step()) == content(other.next_step())


def test_ranks_share_the_rows_of_one_process() -> None:
    whole = reader(rows=4, grad_accum_steps=2)
    halves = [reader(rows=2, grad_accum_steps=2, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(15):
        step, parts = whole.next_step(), [half.next_step() for half in halves]
        assert sorted(content(parts[0]) + content(parts[1])) == sorted(content(step))
        assert {step.num_targets} == {part.num_targets for part in parts}


def test_num_targets_is_what_the_micro_batches_hold() -> None:
    batch = reader(rows=4, grad_accum_steps=3).next_step()
    held = sum(int((targets_BT != IGNORE_INDEX).sum()) for _, targets_BT in batch.micro_batches)
    assert (len(batch.micro_batches), held) == (3, batch.num_targets)


def test_every_batch_has_one_of_the_announced_shapes() -> None:
    source = reader()
    shapes = set(source.shapes())
    assert len(shapes) <= 4
    for _ in range(60):
        assert {tuple(tokens_BT.shape) for tokens_BT, _ in source.next_step().micro_batches} <= shapes


def test_each_rank_knows_the_shapes_of_all_ranks() -> None:
    ranks = [reader(rows=5, grad_accum_steps=3, rank=rank, world_size=2) for rank in (0, 1)]
    have_other_widths = 0
    for _ in range(20):
        steps = [rank.next_step() for rank in ranks]
        own = [sorted(tuple(tokens_BT.shape) for tokens_BT, _ in step.micro_batches) for step in steps]
        assert sorted(own[0] + own[1]) == sorted(steps[0].shapes) == sorted(steps[1].shapes)
        have_other_widths += own[0] != own[1]
    assert have_other_widths


def test_a_batch_is_padded_and_learns_the_answer_only() -> None:
    tokens_BT, targets_BT = padded_batch([example(1, length=5, answer=2), example(2, length=3)], [4, 8], PAD)
    assert tokens_BT.shape == (2, 8)
    assert tokens_BT[0].tolist() == [6, 7, 8, 9, 10, 0, 0, 0]
    assert targets_BT[0].tolist() == [-100, -100, -100, 10, 11, -100, -100, -100]


def test_widths_never_exceed_the_context() -> None:
    assert batch_widths([3, 10, 30, 63], 64) == [16, 32, 64]
    assert batch_widths([3, 10, 30, 60], 60) == [16, 32, 60]


def test_fewer_rows_than_a_batch_still_fill_one() -> None:
    few = ChatReader(examples()[:3], pad_id=PAD, sequence_len=64, device_batch_size=8)
    assert len(content(few.next_step())) == 8


@pytest.fixture
def model() -> GPT:
    made = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=64), 20)
    made.init_weights(1)
    return made.eval()


@pytest.mark.parametrize("batch_rows", [1, 5, 100])
def test_validation_is_the_mean_over_answer_tokens(model: GPT, batch_rows: int) -> None:
    rows = examples()[:12]
    nats = num_targets = 0.0
    for one in rows:
        tokens_BT, targets_BT = padded_batch([one], [one.num_inputs], PAD)
        with torch.no_grad():
            nats += float(model.token_losses(tokens_BT, targets_BT).sum())
        num_targets += one.num_targets
    validator = ChatValidator(rows, pad_id=PAD, sequence_len=64, batch_rows=batch_rows)
    assert validator(model).loss == pytest.approx(nats / num_targets, rel=1e-5)
    assert validator(model).bpb is None


def test_the_rows_go_on_over_a_change_of_world_size() -> None:
    whole = reader(rows=8, grad_accum_steps=2)
    position: dict[str, int] = whole.position
    for world_size in (1, 2, 1, 4):
        ranks = [
            reader(8 // world_size, grad_accum_steps=2, rank=r, world_size=world_size)
            for r in range(world_size)
        ]
        for rank in ranks:
            rank.seek(position)
        for _ in range(4):  # a round has 6 steps
            step, parts = whole.next_step(), [rank.next_step() for rank in ranks]
            assert sorted(row for part in parts for row in content(part)) == sorted(content(step))
            assert {part.num_targets for part in parts} == {step.num_targets}
        position = ranks[-1].position


@pytest.mark.parametrize(("num_rows", "world_size"), [(12, 2), (13, 2), (3, 4), (1, 4)])
def test_all_ranks_validate_in_equally_many_passes(model: GPT, num_rows: int, world_size: int) -> None:
    """A sharded model gathers its weights from all ranks in each pass."""
    rows = examples()[:num_rows]
    settings: dict[str, Any] = {"pad_id": PAD, "sequence_len": 64, "batch_rows": 2, "world_size": world_size}
    ranks = [ChatValidator(rows, rank=rank, **settings) for rank in range(world_size)]
    assert len({len(rank._batches) for rank in ranks}) == 1
    scored = sum(int((batch[-1] != IGNORE_INDEX).sum()) for rank in ranks for batch in rank._batches)
    assert scored == sum(row.num_targets for row in rows)
