"""Inspection: what it counts, and a fixture for each reason that makes a file caution or blocked."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import ContractError
from picochat_trainer.tuning.inspect import inspect_file
from picochat_trainer.tuning.inspection import Inspection

WORDS = ("river", "castle", "engine", "garden", "letter", "window", "market", "bridge", "forest", "island")


def chat(i: int, **fields: Any) -> dict[str, Any]:
    word = WORDS[i % 10]
    return {
        "user": f"Where is the {word} {i}?",
        "assistant": f"The {word} is in town {i}.",
        "category": "domain",
        **fields,
    }


def item(i: int, **fields: Any) -> dict[str, Any]:
    return {
        "user": f"Where is the {WORDS[i % 10]} {i}?",
        "must_include": [f"town {i}"],
        "category": "domain",
        **fields,
    }


def pair(i: int, **fields: Any) -> dict[str, Any]:
    more = [" now", ""] if i % 4 == 1 else ["", " now"] if i % 4 == 3 else ["", ""]
    side = [f"The {WORDS[i % 10]} is in town {i + wrong}{more[wrong]}." for wrong in (0, 1)]
    return {"prompt": f"Where is the {WORDS[i % 10]} {i}?", "chosen": side[0], "rejected": side[1], **fields}


UNANSWERABLE = {"user": "Who will win?", "answerable": False, "category": "domain"}


def inspect(tmp_path: Path, *rows: Any, **options: Any) -> Inspection:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return inspect_file(path, **options)


def checks(found: Inspection) -> dict[str, str]:
    return {reason.check: reason.status for reason in found.reasons}


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([chat(i) for i in range(8)], "chat"),
        (
            [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 1,
            "chat",
        ),
        ([*(item(i) for i in range(4)), UNANSWERABLE], "eval"),
        ([pair(i) for i in range(8)], "preferences"),
        (["{", {"user": "a", "winner": "b", "loser": "c"}], "preferences"),
    ],
)
def test_the_kind_follows_from_the_keys(tmp_path: Path, rows: list[Any], kind: str) -> None:
    assert inspect(tmp_path, *rows).kind == kind


def test_rows_of_no_kind_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="are neither chat rows"):
        inspect(tmp_path, {"text": "x"})
    with pytest.raises(ContractError, match="the first has the keys 'text'"):
        inspect(tmp_path, {"text": "x"})


def test_a_json_array_is_told_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('[{"user": "a", "assistant": "b"},\n]\n')
    with pytest.raises(ContractError, match="a JSON array; write one object per line"):
        inspect_file(path)


@pytest.mark.parametrize(
    "rows",
    [
        [chat(i) for i in range(8)],
        [*(item(i) for i in range(4)), UNANSWERABLE],
        [pair(i) for i in range(8)],
    ],
)
def test_good_files_are_ready(tmp_path: Path, rows: list[Any]) -> None:
    found = inspect(tmp_path, *rows)
    assert (found.status, found.reasons) == ("ready", ())
    assert (found.num_rows, found.num_invalid) == (len(rows), 0)


@pytest.mark.parametrize(
    ("rows", "check"),
    [
        ([chat(i) for i in range(7)], "rows"),
        (
            [*(chat(i) for i in range(8)), *(chat(i, assistant=f"x {i}") for i in range(3))],
            "duplicate_prompts",
        ),
        ([*(chat(i) for i in range(40)), chat(41, category="rare")], "category_balance"),
        ([chat(i, assistant="Yes.") for i in range(10)], "constant_answer"),
        ([item(0), UNANSWERABLE, item(2)], "rows"),
        ([item(i) for i in range(4)], "unanswerable"),
        ([*(item(i, must_include=["town"]) for i in range(8)), UNANSWERABLE], "constant_answer"),
        ([pair(i) for i in range(7)], "rows"),
        ([pair(i, rejected=f"The {WORDS[i]} is far away from here {i}.") for i in range(8)], "length_bias"),
        ([pair(i, rejected=f"Where is the {WORDS[i]} {i}?") for i in range(8)], "echo"),
        (
            [
                *(pair(i) for i in range(8)),
                {"prompt": "a", "chosen": "b c", "rejected": "d c"},
                {"prompt": "a", "chosen": "d c", "rejected": "b c"},
            ],
            "reversed",
        ),
    ],
)
def test_a_doubtful_file_is_caution(tmp_path: Path, rows: list[Any], check: str) -> None:
    found = inspect(tmp_path, *rows)
    assert found.status == "caution"
    assert checks(found).get(check) == "caution"


def test_every_bad_line_is_named_up_to_the_cap(tmp_path: Path) -> None:
    bad = ["{", {"user": "x"}, [], {"user": "", "assistant": "x"}]
    found = inspect(tmp_path, *(chat(i) for i in range(8)), "", *bad, max_problems=3)
    assert [problem.line for problem in found.problems] == [10, 11, 12]
    assert (found.num_invalid, found.problems_omitted, found.num_rows, found.num_lines) == (4, 1, 8, 12)
    assert (found.status, checks(found)["invalid_rows"]) == ("blocked", "blocked")
    assert "line 10: not JSON" in found.reasons[0].message


def test_a_file_without_a_usable_row_is_blocked(tmp_path: Path) -> None:
    assert inspect(tmp_path, kind="chat").status == "blocked"
    assert inspect(tmp_path, {"user": "no rule"}, kind="eval").status == "blocked"


def test_repeats_name_both_lines(tmp_path: Path) -> None:
    copy = {**chat(0), "user": "WHERE is the river 0 ?"}
    near = {**chat(0), "user": "Where is the rivet 0?"}
    found = inspect(tmp_path, *(chat(i) for i in range(10)), copy, near)
    assert found.repeats is not None
    assert (found.repeats.num_exact, found.repeats.num_near) == (1, 1)
    assert (found.repeats.exact_examples[0].line, found.repeats.exact_examples[0].earlier_line) == (11, 1)
    assert (found.repeats.near_examples[0].line, found.repeats.near_examples[0].earlier_line) == (12, 1)


def test_families_go_by_group_and_by_shape(tmp_path: Path) -> None:
    grouped = [chat(i, group=f"math-add-{i}") for i in range(4)]
    shaped = [chat(i, user=f'Is "{WORDS[i]}" {i} letters long?') for i in range(5)]
    found = inspect(tmp_path, *grouped, *shaped)
    assert found.families is not None
    assert found.families.largest == {"is * # letters long?": 5, "math-add": 4}


def test_a_rule_is_counted_per_item(tmp_path: Path) -> None:
    heavy = item(0, must_include=["a", "b", "c"], must_not_include=["d"], entities=["e"])
    found = inspect(tmp_path, heavy, item(1), item(2), UNANSWERABLE)
    assert found.rules is not None
    assert found.rules.num_items == {
        "must_include": 3,
        "must_not_include": 1,
        "required_entities": 1,
        "unanswerable": 1,
    }
    assert (found.rules.items_by_num_rules, found.rules.least_rules) == ({1: 3, 3: 1}, 1)
    assert found.unanswerable_share == 0.25


def test_a_letter_that_is_always_right_is_found(tmp_path: Path) -> None:
    choice = {"choice_labels": ["A", "B"], "correct_choice": "A", "category": "bench_choice"}
    rows = [{"user": f"Which is the {WORDS[i]}?", **choice} for i in range(9)]
    found = inspect(tmp_path, *rows, UNANSWERABLE)
    assert (found.constant_answers[0].category, found.constant_answers[0].share) == ("bench_choice", 1.0)
    assert "constant_answer" in checks(found)


def test_of_few_rows_one_answer_is_no_pattern(tmp_path: Path) -> None:
    rows = [chat(i, assistant="Yes.", category="few") for i in range(7)]
    assert inspect(tmp_path, *rows, *(chat(i) for i in range(8))).constant_answers == ()


@pytest.mark.parametrize(
    ("categories", "label"),
    [
        (["bench_math_add"], "skill_sft"),
        (["identity_name"], "behavior_sft"),
        (["domain"], "domain_sft"),
        (["identity_name", "gsm8k"], "mixed_behavior_skill_sft"),
        (["domain", "gsm8k"], "mixed_sft"),
    ],
)
def test_the_curriculum_is_named(tmp_path: Path, categories: list[str], label: str) -> None:
    rows = [chat(i, category=categories[i % len(categories)]) for i in range(8)]
    assert inspect(tmp_path, *rows).curriculum == label


def test_balance_lengths_styles_and_shapes_are_measured(tmp_path: Path) -> None:
    conversation = {
        "system": "Be short.",
        "messages": [{"role": r, "content": "one two"} for r in ("user", "assistant", "user", "assistant")],
        "category": "b",
    }
    worked = chat(1, assistant="1 + 1 = 2\nFinal answer: 2", category="a")
    found = inspect(tmp_path, chat(0, category="a"), worked, conversation, {**conversation, "system": "x"})
    assert found.category_entropy == 1.0
    assert found.answer_styles == {"direct": 3, "scratchpad": 1}
    assert found.answer_words is not None and (found.answer_words.least, found.answer_words.most) == (2, 8)
    assert found.shapes is not None
    assert (found.shapes.num_pairs, found.shapes.num_conversations, found.shapes.turns.most) == (2, 2, 4)


def test_pairs_are_measured(tmp_path: Path) -> None:
    found = inspect(tmp_path, *(pair(i) for i in range(8)))
    assert found.pairs is not None
    assert (found.pairs.chosen_longer_share, found.pairs.rejected_longer_share) == (0.25, 0.25)
    assert found.pairs.length_only_accuracy == 0.5
    assert 0.1 < found.pairs.content_difference < 0.6
