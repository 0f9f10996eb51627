"""Chat and eval files: every bad row is named by its line, and an item that anything would pass is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tuning.groups import skill_group
from picochat_trainer.tuning.rows import EvalItem, read_chat, read_eval, to_jsonl

GOOD_CHAT = {"user": "Hi", "assistant": "Hello"}
GOOD_EVAL = {"user": "Hi", "must_include": ["hello"]}


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected a JSON object, got list"),
        ({"user": "x"}, "assistant: Field required"),
        ({"user": " ", "assistant": "x"}, "user: must not be empty"),
        ({"user": "x", "assistant": ""}, "assistant: must not be empty"),
        ({"user": "x", "assistant": 5}, "assistant: expected a valid string; got 5"),
        ({"user": "x", "assistant": ["y"]}, "assistant: expected a valid string; got list"),
        ({"user": "x", "assistant": "\ud800"}, "assistant: holds half of a surrogate pair"),
        ({"user": "x", "assistant": "y", "category": ""}, "category: must not be empty"),
        ({"messages": [{"role": "user", "content": "x"}]}, "must end with an assistant turn"),
    ],
)
def test_a_bad_chat_row_is_named_by_its_line(tmp_path: Path, row: Any, complaint: str) -> None:
    with pytest.raises(ContractError) as caught:
        read_chat(jsonl(tmp_path / "chat.jsonl", GOOD_CHAT, "", row))
    assert caught.value.code is Code.BAD_ROW
    assert caught.value.message.startswith(f"chat.jsonl, line 3: {complaint}")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "the item has no rule"),
        ({"must_include": []}, "the item has no rule"),
        ({"max_words": 5}, "the item has no rule"),
        ({"normalized_answer": "5"}, "the item has no rule"),
        ({"must_includ": ["x"]}, "must_includ: no such key, or a second name of a key that is given"),
        ({"must_include": "x"}, "must_include: expected a valid list; got 'x'"),
        ({"must_include": ["x"], "min_words": 6, "max_words": 5}, "min_words 6 is more than max_words 5"),
        ({"must_include": ["x"], "min_chars": 9, "max_chars": 8}, "min_chars 9 is more than max_chars 8"),
        ({"must_include": ["In Oslo."], "must_not_include": ["oslo"]}, "'In Oslo.' holds 'oslo'"),
        ({"entities": ["Oslo"], "must_not_include": ["oslo"]}, "'Oslo' holds 'oslo'"),
        ({"must_include_any": [["a b", "b c"]], "must_not_include": ["b"]}, "'a b' holds 'b'"),
        ({"must_include": [" "]}, "a phrase to look for must not be empty"),
        ({"must_include_any": [[]]}, "each group of must_include_any"),
        ({"choice_labels": ["A", "B"]}, "choice_labels and correct_choice go together"),
        ({"choice_labels": ["A"], "correct_choice": "A"}, "two or more different labels"),
        ({"choice_labels": ["A", "A"], "correct_choice": "A"}, "two or more different labels"),
        ({"choice_labels": ["A", "B"], "correct_choice": "C"}, "correct_choice 'C' is none of"),
        ({"normalized_answer_required": True}, "needs a normalized_answer"),
    ],
)
def test_an_eval_item_that_cannot_be_judged_is_named_by_its_line(
    tmp_path: Path, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ContractError) as caught:
        read_eval(jsonl(tmp_path / "eval.jsonl", GOOD_EVAL, {"user": "x", **fields}))
    assert caught.value.code is Code.BAD_ROW
    assert caught.value.message.startswith("eval.jsonl, line 2: ")
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        '{"user": "x", "must_include": ["a"], "must_include": ["b"]}',
        '{"user": "x", "assistant": "y", "user": "z"}',
    ],
)
def test_a_key_that_is_given_twice_is_an_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ContractError, match=r"rows\.jsonl, line 1: not JSON .*'(user|must_include)' twice"):
        read_chat(path) if "assistant" in line else read_eval(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"must_include": ["x"]},
        {"expected": "x"},
        {"must_include_any": [["x", "y"]]},
        {"must_include_any": [["x", "y"]], "must_not_include": ["y"]},
        {"must_include": ["answer"], "must_not_include": ["swe"]},
        {"must_not_include": ["x"]},
        {"entities": ["Oslo"]},
        {"answerable": False},
        {"require_corpus_support": True},
        {"final_answer": "5", "normalized_answer_required": True},
        {"choice_labels": ["A", "B"], "answer_choice": "B"},
    ],
)
def test_each_kind_of_rule_is_enough(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert len(read_eval(jsonl(tmp_path / "eval.jsonl", {"user": "x", **fields}))) == 1


def test_aliases_of_the_mission_are_read(tmp_path: Path) -> None:
    row = {"user": "x", "expected": "yes", "eval_split": "smoke", "eval_level": "l1", "answer_aliases": ["y"]}
    item = read_eval(jsonl(tmp_path / "eval.jsonl", row))[0]
    assert (item.required_phrases, item.reference) == (("yes",), "yes")
    assert (item.split, item.level, item.accepted_answers) == ("smoke", "l1", ("y",))
    chat = {**GOOD_CHAT, "group_id": "g", "mixture_profile": "full"}
    assert read_chat(jsonl(tmp_path / "chat.jsonl", chat))[0].group == "g"


def test_an_item_may_have_a_system_text(tmp_path: Path) -> None:
    [item] = read_eval(jsonl(tmp_path / "eval.jsonl", {**GOOD_EVAL, "system": "Be short."}))
    assert item.messages_list == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
    ]
    assert item.prompt_text == "Hi"


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    rows = read_chat(jsonl(tmp_path / "chat.jsonl", "", GOOD_CHAT, "", GOOD_CHAT))
    assert [row.line for row in rows] == [2, 4]


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="has no rows"):
        read_eval(jsonl(tmp_path / "eval.jsonl", ""))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no file gone\.jsonl"):
        read_chat(tmp_path / "gone.jsonl")


def test_written_items_read_back_equal(tmp_path: Path) -> None:
    item = EvalItem(user="a\n\u6771", must_include_any=(("x", "y"),), answerable=False, max_words=3)
    path = tmp_path / "eval.jsonl"
    path.write_text(to_jsonl([item, item]))
    assert [row.model_copy(update={"line": 0}) for row in read_eval(path)] == [item, item]


@pytest.mark.parametrize(
    ("category", "group"),
    [
        ("identity_name", "identity"),
        ("refusal_live", "refusal"),
        ("bench_choice_world", "choice"),
        ("mmlu_law", "choice"),
        ("arc_easy", "choice"),
        ("bench_math_l1_add", "math"),
        ("gsm8k", "math"),
        ("bench_spelling_count", "spelling"),
        ("domain_faq", None),
        (None, None),
    ],
)
def test_categories_fall_into_skill_groups(category: str | None, group: str | None) -> None:
    assert skill_group(category) == group
