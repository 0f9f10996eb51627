"""Chat JSONL (SFT rows) and eval JSONL: their fields, and reading them with errors that name the line.

A chat row is one pair of `user` and `assistant`. An eval item holds a prompt and the rules that a reply must
meet; an item without rules could only be passed, so it is an error.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from picochat_contract.errors import Code, ContractError
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from picochat_trainer.data.sources import read_utf8
from picochat_trainer.tuning.groups import skill_group

R = TypeVar("R", bound="Row")


class Row(BaseModel):
    """Base of both kinds: immutable, knows its line."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    line: int = Field(default=0, exclude=True)
    """1-based line number in its file; 0 for a row that comes from none."""
    user: str
    category: str | None = None
    group: str | None = Field(default=None, validation_alias=AliasChoices("group", "group_id", "template"))
    """Rows of one family, such as one template: a split keeps them on one side."""
    answerable: bool = True
    """False: the right reply is to say that it does not know."""
    curriculum_stage: str | None = None
    answer_style: str | None = None

    @property
    def skill(self) -> str | None:
        return skill_group(self.category)

    @field_validator("*", mode="after")
    @classmethod
    def _texts_are_unicode(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError("holds half of a surrogate pair; write the whole character") from error
        return value

    @field_validator("user", "assistant", "category", "group", check_fields=False)
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be empty")
        return value

    def to_json(self) -> str:
        """One JSONL line with the fields that differ from their defaults."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)


class ChatRow(Row):
    """One SFT pair. `fit_*` say what counts when the model is asked its own row again."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    assistant: str
    expected_final_answer: str | None = None
    fit_must_include: tuple[str, ...] | None = None
    """Phrases that a right reply holds; None means the whole answer."""
    fit_reference_answer: str | None = None
    fit_normalized_answer: str | None = None
    fit_normalized_answer_required: bool = False
    fit_max_words: int | None = Field(default=None, ge=1)


class EvalItem(Row):
    """One eval prompt with its rules. Unknown keys are refused: a misspelt rule must not vanish."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="forbid")

    must_include: tuple[str, ...] = ()
    expected: str | None = None
    """Shorthand: also a required phrase and the reference."""
    must_include_any: tuple[tuple[str, ...], ...] = ()
    """Groups; of each at least one phrase."""
    must_not_include: tuple[str, ...] = ()
    split: str | None = Field(default=None, validation_alias=AliasChoices("split", "eval_split"))
    level: str | None = Field(default=None, validation_alias=AliasChoices("level", "eval_level"))
    robustness_variant: str | None = None
    reference_answer: str | None = Field(
        default=None, validation_alias=AliasChoices("reference_answer", "reference")
    )
    required_entities: tuple[str, ...] = Field(
        default=(), validation_alias=AliasChoices("required_entities", "entities")
    )
    min_words: int | None = Field(default=None, ge=0)
    max_words: int | None = Field(default=None, ge=1)
    min_chars: int | None = Field(default=None, ge=0)
    max_chars: int | None = Field(default=None, ge=1)
    require_corpus_support: bool = False
    choice_labels: tuple[str, ...] = ()
    correct_choice: str | None = Field(
        default=None, validation_alias=AliasChoices("correct_choice", "answer_choice")
    )
    normalized_answer: str | None = Field(
        default=None, validation_alias=AliasChoices("normalized_answer", "final_answer", "expected_answer")
    )
    normalized_answers: tuple[str, ...] = Field(
        default=(),
        validation_alias=AliasChoices("normalized_answers", "answer_aliases", "final_answer_aliases"),
    )
    normalized_answer_required: bool = False
    mixture_profile: str | None = None
    mixture_component: str | None = None
    mixture_benchmark_profile: str | None = None

    @property
    def required_phrases(self) -> tuple[str, ...]:
        """`must_include` and, where there is one, `expected`."""
        return self.must_include if self.expected is None else (*self.must_include, self.expected)

    @property
    def reference(self) -> str | None:
        return self.reference_answer or self.expected

    @property
    def is_choice(self) -> bool:
        return bool(self.choice_labels)

    @property
    def accepted_answers(self) -> tuple[str, ...]:
        """Final answers that count as right; empty where the answer is not judged that way."""
        if self.normalized_answer is None:
            return self.normalized_answers
        return (self.normalized_answer, *self.normalized_answers)

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if self.is_choice != (self.correct_choice is not None):
            raise ValueError("choice_labels and correct_choice go together")
        if self.is_choice:
            labels = self.choice_labels
            if len(labels) < 2 or len(set(labels)) != len(labels) or not all(map(str.strip, labels)):
                raise ValueError(f"choice_labels must be two or more different labels; got {list(labels)}")
            if self.correct_choice not in labels:
                raise ValueError(f"correct_choice {self.correct_choice!r} is none of {list(labels)}")
        if self.normalized_answer_required and not self.accepted_answers:
            raise ValueError("normalized_answer_required needs a normalized_answer")
        phrases = [
            *self.required_phrases,
            *self.must_not_include,
            *self.required_entities,
            *self.accepted_answers,
        ]
        if not all(phrase.strip() for phrase in phrases):
            raise ValueError("a phrase to look for must not be empty")
        if not all(group and all(phrase.strip() for phrase in group) for group in self.must_include_any):
            raise ValueError("each group of must_include_any needs at least one phrase")
        if not self._has_rule:
            raise ValueError(
                "the item has no rule, so any reply would pass: give must_include, must_include_any, "
                "must_not_include, required_entities, a required normalized_answer, choice_labels, "
                "require_corpus_support, or answerable: false"
            )
        return self

    @property
    def _has_rule(self) -> bool:
        return bool(
            self.required_phrases
            or self.must_include_any
            or self.must_not_include
            or self.required_entities
            or self.normalized_answer_required
            or self.is_choice
            or self.require_corpus_support
            or not self.answerable
        )


def read_chat(path: Path, name: str | None = None) -> list[ChatRow]:
    """Rows of a chat JSONL file; raise `bad_row` with the line number."""
    return _read(path, name or path.name, ChatRow)


def read_eval(path: Path, name: str | None = None) -> list[EvalItem]:
    """Items of an eval JSONL file; raise `bad_row` with the line number."""
    return _read(path, name or path.name, EvalItem)


def to_jsonl(rows: Iterable[Row]) -> str:
    return "".join(f"{row.to_json()}\n" for row in rows)


def _read(path: Path, name: str, model: type[R]) -> list[R]:
    rows = [
        _row(line, number, name, model)
        for number, line in enumerate(read_utf8(path, name).split("\n"), start=1)
        if line.strip()
    ]
    if not rows:
        raise ContractError(
            Code.BAD_ROW, f"{name} has no rows: expected one JSON object per line", param=name
        )
    return rows


def _row(line: str, number: int, name: str, model: type[R]) -> R:
    where = f"{name}, line {number}"
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ContractError(Code.BAD_ROW, f"{where}: not JSON ({error})", param=name) from error
    if not isinstance(raw, dict):
        raise ContractError(
            Code.BAD_ROW, f"{where}: expected a JSON object, got {type(raw).__name__}", param=name
        )
    if "messages" in raw and "user" not in raw:
        raise ContractError(
            Code.BAD_ROW,
            f"{where}: this is a `messages` row; expected one pair of `user` and `assistant` per row",
            param=name,
        )
    try:
        return model.model_validate({**raw, "line": number})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = str(first.get("ctx", {}).get("error") or first["msg"])
        raise ContractError(
            Code.BAD_ROW, f"{where}: {field + ': ' if field else ''}{message}", param=name
        ) from error
