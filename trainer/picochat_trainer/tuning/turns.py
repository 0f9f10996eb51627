"""Turns of a conversation: roles, text, tool calls in OpenAI's shape. What may follow what is checked here."""

import json
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from picochat_trainer.tokenizer.chat_template import turn_text
from picochat_trainer.tuning.row import checked_unicode


class ToolCall(BaseModel):
    """One call that an assistant makes; `{"function": {...}}` around name and arguments is OpenAI's shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    name: str = Field(min_length=1)
    arguments: dict[str, Any] = {}
    """By parameter name. In a file also as JSON text, which is how OpenAI writes it."""

    @model_validator(mode="before")
    @classmethod
    def _unwrap_function(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "function" not in value:
            return value
        if value.get("type", "function") != "function" or not isinstance(value["function"], dict):
            raise ValueError('expected {"type": "function", "function": {"name": ..., "arguments": ...}}')
        rest = {key: item for key, item in value.items() if key not in ("type", "function")}
        return {**rest, **value["function"]}

    @field_validator("arguments", mode="before")
    @classmethod
    def _parse_arguments(cls, value: Any) -> Any:
        parsed = parsed_json(value or "{}") if isinstance(value, str) else value
        if not isinstance(parsed, dict):
            raise ValueError(f"expected a JSON object of arguments by name, got {type(parsed).__name__}")
        return parsed_json(json.dumps(parsed))

    def canonical(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {**({} if self.id is None else {"id": self.id}), "type": "function", "function": function}


class Turn(BaseModel):
    """One message."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """On a tool's turn: which call it answers."""

    @field_validator("tool_calls", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, value: Any) -> Any:
        """OpenAI also writes null beside tool calls, and a list of text parts."""
        if value is None:
            return ""
        if not isinstance(value, list):
            return value
        parts = [part if isinstance(part, dict) else {} for part in value]
        if not all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
            raise ValueError('expected a text, or a list of {"type": "text", "text": ...} parts')
        return "".join(part["text"] for part in parts)

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        checked_unicode(self.content)
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls belong to an assistant's turn, this is a turn of {self.role}")
        # A tool may return nothing.
        if not self.content.strip() and not self.tool_calls and self.role != "tool":
            raise ValueError("content must not be empty")
        return self

    @property
    def text(self) -> str:
        """As it stands between the control tokens: content and tool calls."""
        return turn_text(self.canonical())

    def canonical(self) -> dict[str, Any]:
        """As `Tokenizer.encode_chat` and `apply_chat_template` take it."""
        calls = {"tool_calls": [call.canonical() for call in self.tool_calls]} if self.tool_calls else {}
        answers = {} if self.tool_call_id is None else {"tool_call_id": self.tool_call_id}
        return {"role": self.role, "content": self.content, **calls, **answers}


def checked_tools(value: Any) -> list[dict[str, Any]]:
    """Tool definitions in OpenAI's shape; a bare `{"name": ...}` is wrapped, JSON text is parsed."""
    value = parsed_json(value) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of tool definitions, got {type(value).__name__}")
    tools: list[dict[str, Any]] = []
    for number, tool in enumerate(value, start=1):
        wrapped = isinstance(tool, dict) and isinstance(tool.get("function"), dict)
        function = tool["function"] if wrapped else tool
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f'tool {number}: expected an object with a "name"')
        tools.append(tool if wrapped else {"type": "function", "function": tool})
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise ValueError(f"two tools have one name: {', '.join(sorted(names))}")
    checked: list[dict[str, Any]] = parsed_json(json.dumps(tools))
    return checked


def check_order(turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> None:
    """Raise where the turns cannot be a conversation that ends with what is to be learned."""
    if turns[-1].role != "assistant":
        raise ValueError(
            f"must end with an assistant turn, the one to learn; it ends with a turn of {turns[-1].role}"
        )
    if not any(turn.role == "user" for turn in turns):
        raise ValueError("needs a turn of the user before the answer")
    names = {tool["function"]["name"] for tool in tools}
    open_calls: list[str | None] = []
    for position, (before, turn) in enumerate(zip([None, *turns], turns, strict=False)):
        where = f"turn {position + 1}"
        if turn.role == "system" and position:
            raise ValueError(f"{where}: a system turn can only be the first")
        if turn.role == "tool":
            if before is None or before.role not in ("assistant", "tool"):
                raise ValueError(f"{where}: a tool's turn must follow the assistant's turn that called it")
            _close(turn, open_calls, where)
        else:
            open_calls = [call.id for call in turn.tool_calls]
        unknown = [call.name for call in turn.tool_calls if names and call.name not in names]
        if unknown:
            raise ValueError(
                f"{where}: calls {unknown[0]!r}, which is none of tools: {', '.join(sorted(names))}"
            )


def parsed_json(text: str) -> Any:
    """JSON without NaN and Infinity, which other readers refuse."""
    try:
        return json.loads(checked_unicode(text), parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _close(turn: Turn, open_calls: list[str | None], where: str) -> None:
    """Results carry no id in the chat's text, so they must come in the order of the calls."""
    if turn.tool_call_id is None or not any(open_calls):
        return
    if turn.tool_call_id != open_calls[0]:
        raise ValueError(
            f"{where}: answers call {turn.tool_call_id!r}, the next open call is {open_calls[0]!r}; give the "
            "results in the order of the calls"
        )
    open_calls.pop(0)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
