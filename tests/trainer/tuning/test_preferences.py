"""Preference files: their names of fields, and pairs that say nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tuning.preferences import PreferenceRow, read_preferences
from picochat_trainer.tuning.rows import to_jsonl

GOOD = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[PreferenceRow]:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_preferences(path)


@pytest.mark.parametrize("prompt", ["prompt", "user"])
@pytest.mark.parametrize("chosen", ["chosen", "preferred", "winner"])
@pytest.mark.parametrize("rejected", ["rejected", "dispreferred", "loser"])
def test_every_name_of_a_field_is_read(tmp_path: Path, prompt: str, chosen: str, rejected: str) -> None:
    [row] = read(tmp_path, {prompt: "a", chosen: "b", rejected: "c", "category": "x", "group_id": "g"})
    assert (row.prompt, row.chosen, row.rejected, row.category, row.group, row.line) == (
        "a",
        "b",
        "c",
        "x",
        "g",
        1,
    )


def test_written_rows_read_back_equal(tmp_path: Path) -> None:
    row = PreferenceRow(
        line=1, prompt="a\n\u6771", chosen="b", rejected="c", category="x", rejection="negation"
    )
    path = tmp_path / "pairs.jsonl"
    path.write_text(to_jsonl([row]))
    assert read_preferences(path) == [row]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "a", "chosen": "b"}, "Field required"),
        ({**GOOD, "rejected": " "}, "must not be empty"),
        ({**GOOD, "rejected": "4"}, "are the same answer"),
        ({**GOOD, "chosen": "It is Red.", "rejected": "it  is red"}, "are the same answer"),
        ({**GOOD, "user": "3 + 3?"}, "prompt and user are names of one field and differ"),
        ({**GOOD, "chosen": ["4"]}, "chosen: "),
    ],
)
def test_a_bad_pair_is_named_by_its_line(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ContractError) as caught:
        read(tmp_path, GOOD, row)
    assert caught.value.code is Code.BAD_ROW
    assert caught.value.message.startswith("pairs.jsonl, line 2: ")
    assert complaint in caught.value.message


@pytest.mark.parametrize(("one", "other"), [("-5", "5"), ("a + b", "a - b"), ("3.5", "35"), ("???", "...!-")])
def test_signs_that_change_the_meaning_are_a_difference(tmp_path: Path, one: str, other: str) -> None:
    assert len(read(tmp_path, {**GOOD, "chosen": one, "rejected": other})) == 1
