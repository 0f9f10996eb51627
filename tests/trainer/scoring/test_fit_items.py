"""Which SFT rows are asked again, and by which rule."""

from collections import Counter

import pytest
from picochat_trainer.scoring.fit_items import MIN_GROUP_ROWS, fit_item, sample_rows
from picochat_trainer.scoring.judgement import Reply, judge
from picochat_trainer.tuning.rows import ChatRow


def rows_of(**sizes: int) -> list[ChatRow]:
    categories = [category for category, size in sizes.items() for _ in range(size)]
    return [
        ChatRow(line=line, user=f"u{line}", assistant="a", category=category)
        for line, category in enumerate(categories, start=1)
    ]


def test_only_the_named_lines_are_used() -> None:
    rows = rows_of(identity_x=5)
    assert [row.line for row in sample_rows(rows, [2, 5], max_rows=10, seed=1)] == [2, 5]


def test_a_cap_is_shared_evenly_between_skill_groups() -> None:
    rows = rows_of(identity_x=500, bench_math_l1=30, refusal_x=200)
    chosen = sample_rows(rows, [row.line for row in rows], max_rows=90, seed=1)
    assert Counter(row.skill for row in chosen) == {"identity": 30, "math": 30, "refusal": 30}


def test_what_a_small_group_leaves_goes_to_the_others() -> None:
    rows = rows_of(identity_x=500, bench_math_l1=10, refusal_x=200)
    chosen = sample_rows(rows, [row.line for row in rows], max_rows=90, seed=1)
    assert Counter(row.skill for row in chosen) == {"identity": 40, "math": 10, "refusal": 40}


def test_every_group_gets_ten_rows_where_it_has_them() -> None:
    rows = rows_of(identity_x=100, bench_math_l1=100, refusal_x=4)
    chosen = sample_rows(rows, [row.line for row in rows], max_rows=6, seed=1)
    assert Counter(row.skill for row in chosen) == {
        "identity": MIN_GROUP_ROWS,
        "math": MIN_GROUP_ROWS,
        "refusal": 4,
    }


def test_equal_seeds_choose_equal_rows() -> None:
    rows = rows_of(identity_x=100)
    lines = [row.line for row in rows]
    first = sample_rows(rows, lines, max_rows=20, seed=1)
    assert first == sample_rows(rows, lines, max_rows=20, seed=1)
    assert first != sample_rows(rows, lines, max_rows=20, seed=2)


@pytest.mark.parametrize(
    ("fields", "right", "wrong"),
    [
        ({"assistant": "It is red."}, "it is RED", "it is blue"),
        ({"assistant": "It is red.", "fit_must_include": ["red"]}, "red", "it is"),
        ({"assistant": "5", "fit_normalized_answer_required": True}, "5", "4"),
        (
            {
                "assistant": "2 + 3\nFinal answer: 5",
                "expected_final_answer": "5",
                "fit_normalized_answer_required": True,
            },
            "final answer: 5",
            "final answer: 2",
        ),
        ({"assistant": "I do not know that.", "answerable": False}, "I cannot answer.", "It is 5."),
        ({"assistant": "red", "fit_max_words": 2}, "red", "red or maybe blue"),
    ],
)
def test_a_row_is_judged_by_its_fit_rules(fields: dict[str, object], right: str, wrong: str) -> None:
    item = fit_item(ChatRow.model_validate({"user": "What?", **fields}))
    assert judge(item, Reply(text=right)).passed
    assert not judge(item, Reply(text=wrong)).passed
    assert not judge(item, Reply(text="")).passed


def test_a_conversation_is_asked_again_with_all_that_came_before_its_last_answer() -> None:
    turns = [
        {"role": "user", "content": "Find it"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "search", "arguments": {}}]},
        {"role": "tool", "content": "9 AM"},
        {"role": "assistant", "content": "It is at 9 AM."},
    ]
    row = ChatRow.model_validate({"system": "Be short.", "tools": [{"name": "search"}], "messages": turns})
    item = fit_item(row)
    assert item.messages_list == row.messages_list[:-1]
    assert [message["role"] for message in item.messages_list] == ["system", "user", "assistant", "tool"]
    assert item.tools == row.tools
    assert judge(item, Reply(text="It is at 9 AM.")).passed
    assert not judge(item, Reply(text="It is at 8 AM.")).passed
