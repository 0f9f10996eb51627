from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import train_tokenizer
from picochat_trainer.training.chat import ChatSplit, prepare_chat
from picochat_trainer.tuning.rows import ChatRow


class Letters:
    """One id per character of the contents; the answer and one end token are learned."""

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        train_on: Literal["last", "all"] = "all",
    ) -> tuple[list[int], list[int]]:
        *before, answer = (message["content"] for message in messages)
        prompt = "".join(before)
        ids = [*map(ord, prompt), *map(ord, answer), 2]
        return ids, [0] * len(prompt) + [1] * (len(answer) + 1)


def row(line: int, **values: Any) -> ChatRow:
    return ChatRow(line=line, **{"user": f"question {line}", "assistant": "yes", **values})


def prepare(rows: list[ChatRow], **changes: Any) -> ChatSplit:
    settings = {"sequence_len": 64, "val_fraction": 0.2, "seed": 1, **changes}
    return prepare_chat(rows, Letters(), **settings)


def grouped(num_groups: int = 10, size: int = 4) -> list[ChatRow]:
    return [row(i + 1, group=f"g{i % num_groups}", category=f"c{i % 2}") for i in range(num_groups * size)]


def test_a_group_is_never_on_both_sides() -> None:
    for seed in range(10):
        split = prepare(grouped(), seed=seed)
        assert split.method == "group"
        assert {e.group for e in split.train}.isdisjoint(e.group for e in split.val)
        assert sorted(e.line for e in (*split.train, *split.val)) == list(range(1, 41))
        assert 8 <= len(split.val) <= 10


def test_the_split_follows_from_the_seed() -> None:
    assert prepare(grouped()).val == prepare(grouped()).val
    assert prepare(grouped()).val != prepare(grouped(), seed=2).val


def test_every_category_keeps_training_rows() -> None:
    rows = [*grouped(), row(41, group="only", category="rare"), row(42, group="only", category="rare")]
    for seed in range(10):
        assert {e.category for e in prepare(rows, seed=seed).train} == {"c0", "c1", "rare"}


def test_every_skill_is_held_out_in_part() -> None:
    skills = ("identity", "refusal", "bench_math_add", "bench_spelling_first", "bench_choice")
    rows = [row(i + 1, group=f"{skills[i % 5]} {i % 30}", category=skills[i % 5]) for i in range(300)]
    for seed in range(5):
        split = prepare(rows, val_fraction=0.17, seed=seed)
        assert {e.skill for e in split.val} == {"identity", "refusal", "math", "spelling", "choice"}


def test_rows_without_a_group_stay_with_rows_of_the_same_prompt() -> None:
    rows = [row(i + 1, user=f"Question  {i // 2}" if i % 2 else f"question {i // 2}") for i in range(20)]
    val = {e.line for e in prepare(rows).val}
    assert val and all(((line - 1) ^ 1) + 1 in val for line in val)


def test_the_same_prompt_is_never_on_both_sides_whatever_its_groups() -> None:
    rows = [
        row(i + 1, user=f"{'QUESTION' if i % 2 else 'Question'} {i // 2}?", group=f"g{i}") for i in range(20)
    ]
    for seed in range(5):
        split = prepare(rows, seed=seed)
        train, val = ({(e.line - 1) // 2 for e in side} for side in (split.train, split.val))
        assert val and train.isdisjoint(val) and split.method == "group"


def conversation(line: int, *said: str) -> ChatRow:
    turns = [turn for text in said for turn in (("user", text), ("assistant", "ok"))]
    return ChatRow(line=line, messages=[{"role": role, "content": text} for role, text in turns])


def test_rows_that_are_cut_from_one_conversation_stay_on_one_side() -> None:
    rows = [conversation(i + 1, *(f"turn {t} of {i // 3}" for t in range(i % 3 + 1))) for i in range(30)]
    for seed in range(5):
        split = prepare(rows, seed=seed)
        train, val = ({(e.line - 1) // 3 for e in side} for side in (split.train, split.val))
        assert val and train.isdisjoint(val) and split.method == "group"


def test_an_equal_first_turn_alone_makes_no_family() -> None:
    rows = [conversation(i + 1, "Hi", f"question {i}") for i in range(20)]
    assert prepare(rows).method == "group"
    assert len(prepare(rows).val) == 4


@pytest.mark.parametrize(
    ("train_on", "learned"), [("last", "two<|im_end|>"), ("all", "one<|im_end|>two<|im_end|>")]
)
def test_which_turns_are_learned_is_a_setting(train_on: Literal["last", "all"], learned: str) -> None:
    backend = train_tokenizer(TokenizerConfig(type="byte"), [])
    tokenizer = Tokenizer(backend, digest="")
    turns = [("user", "a"), ("assistant", "one"), ("tool", "result"), ("assistant", "two")]
    messages = [{"role": role, "content": text} for role, text in turns]
    rows = [ChatRow(line=i, system="Be kind.", messages=messages, group=str(i)) for i in (1, 2)]
    split = prepare_chat(rows, tokenizer, sequence_len=256, val_fraction=0.5, seed=1, train_on=train_on)
    [example] = split.train
    kept = [id for id, flag in zip(example.ids, example.loss_mask, strict=True) if flag]
    assert tokenizer.decode(kept, skip_special=False) == learned


def test_one_group_alone_is_split_by_rows_and_says_so() -> None:
    split = prepare([row(i + 1, group="all") for i in range(10)])
    assert split.method == "random"
    assert (len(split.train), len(split.val)) == (8, 2)


def test_rows_that_do_not_fit_are_left_out_and_listed() -> None:
    split = prepare([*grouped(), row(41, user="x" * 80, group="g0", category="c0")])
    assert split.skipped_long == (41,)
    assert 41 not in {e.line for e in (*split.train, *split.val)}


@pytest.mark.parametrize(("length", "fits"), [(60, True), (61, False)])
def test_the_context_counts_inputs_not_the_last_target(length: int, fits: bool) -> None:
    rows = [
        *grouped(),
        row(41, user="x" * length, group="g0", category="c0"),
    ]  # + "yes", whose end is a target only
    assert (41 not in prepare(rows, sequence_len=63).skipped_long) is fits


def test_too_few_rows_that_fit_is_a_bad_row() -> None:
    with pytest.raises(ContractError, match="1 of 2 do") as caught:
        prepare([row(1), row(2, user="x" * 80)])
    assert caught.value.code == Code.BAD_ROW


def test_targets_are_the_answer_and_its_end() -> None:
    [example, *_] = [e for e in prepare(grouped()).train if e.line]
    assert example.num_targets == len("yes") + 1
