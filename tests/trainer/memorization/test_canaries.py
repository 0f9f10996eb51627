"""Canaries follow from seed, settings and store alone, take little of the training text and none of the rest."""

from collections.abc import Callable

import pytest
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import Code, ContractError, SpecError
from picochat_contract.spec import validated
from picochat_trainer.memorization.canaries import (
    MAX_SHARE,
    MIN_CONTROLS,
    Canary,
    CanaryPlan,
    check_canary_room,
    plan_canaries,
)
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.pretraining_data import read_pretraining_data, split_for

REPEATS = (1, 4, 16, 64)


@pytest.fixture
def plan(tokenizer: Tokenizer) -> Callable[..., CanaryPlan]:
    def make(count: int = 2, train_tokens: int = 10**7, seed: int = 1) -> CanaryPlan:
        return plan_canaries(count, REPEATS, seed, tokenizer, train_tokens)

    return make


def test_the_same_seed_plants_the_same_secrets(plan: Callable[..., CanaryPlan]) -> None:
    assert plan() == plan()
    assert {c.secret for c in plan().inserted}.isdisjoint(c.secret for c in plan(seed=2).inserted)


def test_every_entry_has_as_many_secrets_and_controls_are_as_many_as_all(
    plan: Callable[..., CanaryPlan],
) -> None:
    found = plan(count=5)
    assert [c.repeats for c in found.inserted] == [times for times in REPEATS for _ in range(5)]
    assert len(found.controls) == 20 and {c.repeats for c in found.controls} == {0}
    assert len({c.secret for c in found.canaries}) == len({c.prefix for c in found.canaries}) == 40
    assert len(plan(count=1).controls) == MIN_CONTROLS
    assert found.note is None and found.left_out == ()


def test_the_largest_entries_go_first_where_canaries_would_be_too_much_of_the_text(
    plan: Callable[..., CanaryPlan],
) -> None:
    whole = plan()
    limit = int(whole.num_tokens / MAX_SHARE)
    assert plan(train_tokens=limit + 200).repeats == REPEATS
    smaller = plan(train_tokens=limit - 200)
    assert (smaller.repeats, smaller.left_out) == ((1, 4, 16), (64,))
    assert smaller.num_tokens <= MAX_SHARE * smaller.train_tokens
    assert "no canary is repeated 64 times" in str(smaller.note)
    assert smaller.inserted == whole.inserted[:6]


def test_the_first_entry_stays_however_little_text_there_is(plan: Callable[..., CanaryPlan]) -> None:
    found = plan(train_tokens=100)
    assert (found.repeats, found.left_out) == ((1,), (4, 16, 64))
    assert "of the first entry alone" in str(found.note)


def test_no_canaries_means_no_controls_either(plan: Callable[..., CanaryPlan]) -> None:
    found = plan(count=0)
    assert found.canaries == () and found.documents == () and found.note is None


@pytest.mark.parametrize("mode", ["memory", "sharded", "packed"])
@pytest.mark.parametrize("split_mode", ["document", "window"])
def test_in_every_mode_canaries_train_as_often_as_planned_and_never_validate(
    make_store: Callable[[list[str]], TokenStore],
    words: Callable[[int, int], str],
    tokenizer: Tokenizer,
    mode: str,
    split_mode: str,
) -> None:
    store = make_store([words(i, 4_000) for i in range(40)])
    config = validated(
        BaseConfig,
        {"dataset_mode": mode, "split_mode": split_mode, "model": {"sequence_len": 128}, "seed": 3},
    )
    split = split_for(store, config)
    plan = plan_canaries(1, REPEATS, 3, tokenizer, split.corpus_train.num_tokens)
    data = read_pretraining_data(store, config, split.with_extra(plan.documents, 3))
    trained = tokenizer.decode(data.split.train_tokens.to_array().tolist())
    assert plan.repeats == (1, 4)
    assert [trained.count(canary.secret) for canary in plan.inserted] == [1, 4]
    assert not any(control.secret in trained for control in plan.controls)
    assert "secret number" not in tokenizer.decode(data.split.val_tokens.to_array().tolist())
    assert data.facts()["num_extra_documents"] == 5
    one_epoch = []
    while data.batches.position["epoch"] == 0:
        one_epoch += [row for tokens, _ in data.batches.next_step().micro_batches for row in tokens.tolist()]
    read = "\n".join(tokenizer.decode(row) for row in one_epoch)
    assert read.count("secret number") >= 3  # a window's edge may cut one or two


def test_ranks_read_one_plan(
    make_store: Callable[[list[str]], TokenStore], words: Callable[[int, int], str], tokenizer: Tokenizer
) -> None:
    store = make_store([words(i, 4_000) for i in range(40)])
    rows = []
    for world_size in (1, 2):
        config = validated(BaseConfig, {"device_batch_size": 8 // world_size, "model": {"sequence_len": 128}})
        split = split_for(store, config)
        plan = plan_canaries(1, REPEATS, 3, tokenizer, split.corpus_train.num_tokens)
        steps = [
            read_pretraining_data(
                store, config, split.with_extra(plan.documents, 3), rank=rank, world_size=world_size
            )
            .batches.next_step()
            .micro_batches[0][0]
            for rank in range(world_size)
        ]
        rows.append([row for step in steps for row in step.tolist()])
    assert rows[0] == rows[1]


@pytest.mark.parametrize("repeats", [(), (4, 16), (1, 16, 4), (1, 1), (1, 10**6)])
def test_repeats_rise_from_one(repeats: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="canary_repeats must rise from 1") as caught:
        validated(BaseConfig, {"canary_repeats": repeats})
    assert caught.value.code == Code.INVALID_VALUE


def test_a_context_without_room_for_the_secret_is_refused(tokenizer: Tokenizer) -> None:
    canaries = (Canary(prefix="The secret is ", secret="123-456-789", repeats=1),)
    check_canary_room(canaries, tokenizer, 14)
    with pytest.raises(ContractError, match="canary_count: 0") as caught:
        check_canary_room(canaries, tokenizer, 13)
    assert caught.value.code == Code.INVALID_VALUE
    check_canary_room((), tokenizer, 8)
