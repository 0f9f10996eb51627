"""Conversations as SFT rows: what may stand in them, and the one form that everything else reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tuning.rows import ChatRow, read_chat, to_jsonl

ASK = {"role": "user", "content": "Find tomorrow's meeting and draft an email."}
SAY = {"role": "assistant", "content": "Done."}
MISSION = {
    "system": "You are a tool-calling assistant.",
    "tools": [{"name": "search_schedule"}],
    "messages": [
        ASK,
        {"role": "assistant", "content": "I will check the schedule first."},
        {"role": "tool", "content": "search_schedule returned Standup at 9 AM."},
        {"role": "assistant", "content": 'Tool call: send_email\nArguments: {"time":"9 AM"}'},
    ],
}


def called(arguments: Any = None, id: str | None = None, name: str = "search") -> dict[str, Any]:
    function = {"name": name, "arguments": {} if arguments is None else arguments}
    named = {} if id is None else {"id": id}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**named, "type": "function", "function": function}],
    }


def result(id: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": "9 AM", **({} if id is None else {"tool_call_id": id})}


def read_one(tmp_path: Path, row: dict[str, Any]) -> ChatRow:
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps(row) + "\n")
    [read] = read_chat(path)
    return read


def test_the_row_of_the_mission_is_read(tmp_path: Path) -> None:
    row = read_one(tmp_path, MISSION)
    roles = [message["role"] for message in row.messages_list]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert row.user == ASK["content"]
    assert row.assistant.startswith("Tool call: send_email")
    assert row.tools == ({"type": "function", "function": {"name": "search_schedule"}},)
    assert row.is_multi_turn


def test_texts_for_honesty_hold_everything(tmp_path: Path) -> None:
    row = read_one(tmp_path, MISSION)
    for part in ("tool-calling assistant", "search_schedule", "draft an email", "check the", "Standup at 9"):
        assert part in row.prompt_text
    assert "Tool call" not in row.prompt_text
    assert row.answer_text == "\n".join(turn["content"] for turn in MISSION["messages"][1::2])  # type: ignore[index]
    assert row.user_texts == (ASK["content"],)


def test_a_pair_is_a_conversation_of_two() -> None:
    row = ChatRow(user="Hi", assistant="Hello")
    assert row.messages_list == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert (row.prompt_text, row.answer_text, row.is_multi_turn) == ("Hi", "Hello", False)
    assert ChatRow(user="Hi", assistant="Hello", system="Be kind.").prompt_text == "Be kind.\nHi"


@pytest.mark.parametrize("arguments", ['{"day": "tomorrow"}', {"day": "tomorrow"}])
def test_calls_are_read_from_text_and_objects_alike(tmp_path: Path, arguments: Any) -> None:
    row = read_one(tmp_path, {"messages": [ASK, called(arguments, "c1"), result("c1"), SAY]})
    [call] = row.messages_list[1]["tool_calls"]
    assert call["function"] == {"name": "search", "arguments": {"day": "tomorrow"}}
    assert '{"name": "search", "arguments": {"day": "tomorrow"}}' in row.prompt_text


@pytest.mark.parametrize(
    "row",
    [
        MISSION,
        {"messages": [ASK, called({"a": [1, "\u6771"]}, "c1"), result("c1"), SAY], "category": "tools"},
        {"user": "Hi", "assistant": "Hello", "system": "Be kind.", "tools": [{"name": "x"}]},
    ],
)
def test_written_rows_read_back_equal(tmp_path: Path, row: dict[str, Any]) -> None:
    first = read_one(tmp_path, row)
    (tmp_path / "again.jsonl").write_text(to_jsonl([first]))
    assert read_chat(tmp_path / "again.jsonl") == [first]


def test_columns_of_a_table_that_are_null_are_absent(tmp_path: Path) -> None:
    assert read_one(tmp_path, {"messages": [ASK, SAY], "user": None, "tools": None}).assistant == "Done."
    assert read_one(tmp_path, {"user": "x", "assistant": "y", "messages": None}).assistant == "y"


def test_parts_of_text_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert read_one(tmp_path, {"messages": [{"role": "user", "content": parts}, SAY]}).user == "one two"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"messages": []}, "messages: must not be empty"),
        ({"messages": [ASK]}, "must end with an assistant turn"),
        ({"messages": [SAY]}, "needs a turn of the user"),
        ({"messages": [ASK, SAY], "user": "x"}, "has messages and user; give either"),
        ({"messages": [ASK, {"role": "boss", "content": "x"}, SAY]}, "messages.1.role: "),
        ({"messages": [{"role": "user", "content": " "}, SAY]}, "messages.0: content must not be empty"),
        (
            {"messages": [ASK, {"role": "assistant", "content": None}]},
            "messages.1: content must not be empty",
        ),
        (
            {"messages": [ASK, SAY, {"role": "system", "content": "x"}, SAY]},
            "turn 3: a system turn can only be",
        ),
        (
            {"messages": [{"role": "system", "content": "x"}, ASK, SAY], "system": "y"},
            "has a system text and",
        ),
        ({"messages": [ASK, result(), SAY]}, "turn 2: a tool's turn must follow"),
        ({"messages": [ASK, called(id="c1"), result("c2"), SAY]}, "turn 3: answers call 'c2', the next open"),
        ({"messages": [ASK, called("{"), SAY]}, "messages.1.tool_calls.0.arguments: Expecting"),
        (
            {"messages": [ASK, called("[1]"), SAY]},
            "messages.1.tool_calls.0.arguments: expected a JSON object",
        ),
        ({"messages": [ASK, called('{"a": NaN}'), SAY]}, "NaN is no JSON number"),
        (
            {"messages": [ASK, called(name="send"), SAY], "tools": [{"name": "search"}]},
            "turn 2: calls 'send'",
        ),
        ({"messages": [{**ASK, "tool_calls": called()["tool_calls"]}, SAY]}, "belong to an assistant's turn"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SAY]},
            "expected a text, or a list",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}, SAY]}, "half of a surrogate pair"),
        (
            {"messages": [ASK, SAY], "tools": [{"title": "x"}]},
            'tools: tool 1: expected an object with a "name"',
        ),
        ({"messages": [ASK, SAY], "tools": [{"name": "x"}, {"name": "x"}]}, "two tools have one name"),
        ({"messages": [ASK, SAY], "tools": 5}, "expected a list of tool definitions"),
        ({"messages": [ASK, SAY], "system": " "}, "system: must not be empty"),
    ],
)
def test_a_conversation_that_cannot_be_learned_is_named_by_its_line(
    tmp_path: Path, row: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ContractError) as caught:
        read_one(tmp_path, row)
    assert caught.value.code is Code.BAD_ROW
    assert caught.value.message.startswith("chat.jsonl, line 1: ")
    assert complaint in caught.value.message
