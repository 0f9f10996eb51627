"""SFT rows: one pair of `user` and `assistant`, or a conversation in `messages` with system, tools and tool calls.

Both shapes may have `system` and `tools` beside them. The last turn is always the assistant's.
"""

import json
from typing import Any, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from picochat_trainer.tuning.row import TaskRow
from picochat_trainer.tuning.turns import Turn, check_order, checked_tools


class ChatRow(TaskRow):
    """One SFT row. `fit_*` say what counts when the model is asked its own row again."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    user: str = ""
    """The prompt; of a conversation the last turn of the user."""
    assistant: str = ""
    """The answer; of a conversation the last turn, with its tool calls as the chat template writes them."""
    messages: tuple[Turn, ...] = ()
    """A conversation instead of the pair; empty for a pair."""
    system: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    """Definitions in OpenAI's shape."""
    expected_final_answer: str | None = None
    fit_must_include: tuple[str, ...] | None = None
    """Phrases that a right reply holds; None means the whole answer."""
    fit_reference_answer: str | None = None
    fit_normalized_answer: str | None = None
    fit_normalized_answer_required: bool = False
    fit_max_words: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, raw: Any) -> Any:
        """Exports of tables write every column in every row."""
        return {k: v for k, v in raw.items() if v is not None} if isinstance(raw, dict) else raw

    @field_validator("tools", mode="before")
    @classmethod
    def _check_tools(cls, value: Any) -> Any:
        return checked_tools(value)

    @model_validator(mode="after")
    def _is_one_conversation(self) -> Self:
        pair = self.model_fields_set & {"user", "assistant"}
        if "messages" not in self.model_fields_set:
            for name in ("user", "assistant"):
                if name not in pair:
                    raise ValueError(f"{name}: Field required (a row has user and assistant, or messages)")
            return self
        if pair:
            raise ValueError(f"has messages and {' and '.join(sorted(pair))}; give either of the two shapes")
        if not self.messages:
            raise ValueError("messages: must not be empty")
        if self.system is not None and self.messages[0].role == "system":
            raise ValueError("has a system text and a system turn in messages; give one of them")
        check_order(self.messages, self.tools)
        # Frozen for everybody else: both are views of `messages`.
        last_user = next(turn for turn in reversed(self.messages) if turn.role == "user")
        object.__setattr__(self, "user", last_user.text)
        object.__setattr__(self, "assistant", self.messages[-1].text)
        return self

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns, the system text as the first."""
        system = () if self.system is None else (Turn(role="system", content=self.system),)
        pair = (Turn(role="user", content=self.user), Turn(role="assistant", content=self.assistant))
        return system + (self.messages or pair)

    @property
    def messages_list(self) -> list[dict[str, Any]]:
        """The canonical form, as `Tokenizer.encode_chat` takes it; `tools` go beside it."""
        return [turn.canonical() for turn in self.turns]

    @property
    def is_multi_turn(self) -> bool:
        """True where there is more before the answer than a system text and one turn of the user."""
        return sum(turn.role != "system" for turn in self.turns) > 2

    @property
    def has_system(self) -> bool:
        return self.system is not None or (bool(self.messages) and self.messages[0].role == "system")

    @property
    def user_texts(self) -> tuple[str, ...]:
        """What the user says, turn by turn."""
        return tuple(turn.text for turn in self.messages if turn.role == "user") or (self.user,)

    @property
    def prompt_text(self) -> str:
        """Everything that the model reads before the last answer: system text, tools, all turns."""
        turns = self.turns
        system = [turn.text for turn in turns[:1] if turn.role == "system"]
        tools = [json.dumps(tool, ensure_ascii=False) for tool in self.tools]
        return "\n".join([*system, *tools, *(turn.text for turn in turns[len(system) : -1])])

    @property
    def answer_text(self) -> str:
        """What the assistant says, all its turns."""
        return "\n".join(turn.text for turn in self.turns if turn.role == "assistant")

    def to_json(self) -> str:
        """One JSONL line with the fields that differ from their defaults, in the shape that was given."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        if self.messages:
            del values["user"], values["assistant"]
            values["messages"] = [turn.canonical() for turn in self.messages]
        return json.dumps(values, ensure_ascii=False)
