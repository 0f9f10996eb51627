"""External benchmarks become eval items; an answer whose index base is not certain is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tuning.eval_items import EvalItem
from picochat_trainer.tuning.external import read_external

ARC = {
    "question": "What melts ice?",
    "choices": {"label": ["A", "B", "C"], "text": ["cold", "heat", "dark"]},
    "answerKey": "B",
}


def mmlu(answer: Any, **fields: Any) -> dict[str, Any]:
    return {
        "question": "What melts ice?",
        "choices": ["cold", "heat", "dark", "salt"],
        "answer": answer,
        **fields,
    }


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "upload"  # no extension: the content says what it is
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(tmp_path: Path, *rows: Any, name: str = "bench") -> list[EvalItem]:
    return read_external(write(tmp_path, *rows), name)


def complaint(tmp_path: Path, *rows: Any) -> str:
    with pytest.raises(ContractError) as caught:
        read(tmp_path, *rows)
    assert caught.value.code is Code.BAD_ROW
    assert caught.value.message.startswith("external benchmark bench")
    return caught.value.message


@pytest.mark.parametrize(
    "row",
    [
        ARC,
        {
            **ARC,
            "choices": [
                {"label": "A", "text": "cold"},
                {"label": "B", "text": "heat"},
                {"label": "C", "text": "dark"},
            ],
        },
    ],
)
def test_arc_becomes_a_choice_item(tmp_path: Path, row: dict[str, Any]) -> None:
    [item] = read(tmp_path, row, name="arc_easy")
    assert item.user == "What melts ice?\nA) cold\nB) heat\nC) dark"
    assert (item.stem, item.answer_text) == ("What melts ice?", "heat")
    assert (item.choice_labels, item.correct_choice) == (("A", "B", "C"), "B")
    assert (item.category, item.skill, item.line) == ("arc_easy", "choice", 1)


def test_a_long_question_is_searched_for_without_its_options(tmp_path: Path) -> None:
    question = "Which of the following melts the ice on a road?"
    [short], [long] = read(tmp_path, ARC), read(tmp_path, {**ARC, "question": question})
    assert (short.prompt_text, long.prompt_text) == (short.user, question)


def test_labels_of_arc_may_be_numbers(tmp_path: Path) -> None:
    row = {**ARC, "choices": {"label": ["1", "2"], "text": ["cold", "heat"]}, "answerKey": "2"}
    assert read(tmp_path, row)[0].answer_text == "heat"


@pytest.mark.parametrize(
    "row",
    [
        mmlu("B"),
        mmlu(" b "),
        {"question": "What melts ice?", "A": "cold", "B": "heat", "C": "dark", "D": "salt", "answer": "B"},
        "What melts ice?,cold,heat,dark,salt,B",
        '"What melts ice?","cold","heat","dark","salt","B"',
    ],
)
def test_mmlu_with_letters_becomes_a_choice_item(tmp_path: Path, row: Any) -> None:
    [item] = read(tmp_path, row, name="mmlu_physics")
    assert (item.correct_choice, item.answer_text, item.category) == ("B", "heat", "mmlu_physics")


def test_a_subject_is_the_category(tmp_path: Path) -> None:
    assert read(tmp_path, mmlu("B", subject="High School Biology"))[0].category == "mmlu_high_school_biology"


@pytest.mark.parametrize("text", [int, str])
def test_indices_count_from_zero_where_the_file_shows_it(tmp_path: Path, text: type) -> None:
    items = read(tmp_path, mmlu(text(3)), mmlu(text(0)), mmlu(text(1)))
    assert [item.correct_choice for item in items] == ["D", "A", "B"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([1, 2, 3], "line 1: the answers of the file are indices of which none is 0, so they may count"),
        (
            [1, 2, 4],
            "line 3: the answers of the file are indices of which none is 0, so they seem to count from 1",
        ),
        ([0, 2, 4], "line 3: answer 4 is past the last option: other lines count from 0"),
        ([0, 5], "line 2: answer: expected a letter of A to D or an index of 0 to 3, got 5"),
        ([0, -1], "line 2: answer: expected a letter"),
        (["A", "E"], "line 2: answer: expected a letter"),
        ([True], "line 1: answer: expected a letter"),
    ],
)
def test_indices_that_may_count_from_one_are_refused(
    tmp_path: Path, answers: list[Any], message: str
) -> None:
    assert message in complaint(tmp_path, *(mmlu(answer) for answer in answers))


def test_a_line_of_a_csv_may_name_the_columns(tmp_path: Path) -> None:
    rows = ["question,A,B,C,D,answer", '"Two\nlines",a,b,c,d,0', "", "Next,a,b,c,d,3"]
    assert [(item.line, item.correct_choice) for item in read(tmp_path, *rows)] == [(2, "A"), (5, "D")]


def test_quotes_that_were_not_doubled_are_read_as_they_stand(tmp_path: Path) -> None:
    [item] = read(tmp_path, '"It is","a "big", old one","b","c","d",A')
    assert item.answer_text == 'a "big", old one'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["q,a,b,c,d,A", "q,a,b,c,A"], "line 2: expected question, A, B, C, D and answer; got 5 columns"),
        (["q,a,b,c,d,A", " ,a,b,c,d,A"], "line 2: question: expected a text"),
        (['"never closed,a,b,c,d,A', "q,a,b,c,d,A"], "line 1: not CSV"),
        ([], "has no rows"),
        ([ARC, "{"], "line 2: not JSON"),
        ([ARC, "[1]"], "line 2: expected a JSON object, got list"),
        ([{**ARC, "answerKey": "D"}], "line 1: answerKey 'D' is none of the labels A, B, C"),
        (
            [{**ARC, "choices": {"label": ["A"], "text": ["x", "y"]}, "answerKey": "A"}],
            "1 labels for 2 texts",
        ),
        ([{"question": "x"}], "line 1: no known benchmark has the keys question"),
        ([{"question": "x", "answer": "5"}], "line 1: no known benchmark"),
        ([{"user": "x"}], "line 1: the item has no rule"),
        (
            [{**ARC, "choices": {"label": ["A", "B"], "text": ["x", " "]}, "answerKey": "A"}],
            "choices.text: expected",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    assert message in complaint(tmp_path, *rows)


def test_gsm8k_asks_for_the_final_number(tmp_path: Path) -> None:
    row = {"question": "How many eggs?", "answer": "She has 10 * 100 = <<10*100=1000>>1000.\n#### 1,000"}
    [item] = read(tmp_path, row, name="gsm8k")
    assert (item.accepted_answers, item.normalized_answer_required) == (("1,000",), True)
    assert (item.category, item.skill, item.prompt_text) == ("gsm8k", "math", "How many eggs?")


def test_an_own_eval_file_is_taken_as_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, "", {"user": "Hi", "expected": "hello", "category": "x"})[0].line == 2
