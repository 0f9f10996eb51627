"""What every row of a tuning file has, and reading such files with errors that name the line.

A file is JSON Lines: one object per line, blank lines allowed. `scan` goes on after a bad line, `read` stops at the
first one.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from picochat_contract.errors import Code, ContractError
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from picochat_trainer.data.sources import read_utf8
from picochat_trainer.tuning.groups import skill_group

SHOWN_CHARACTERS: Final = 60  # of a value that does not fit
R = TypeVar("R", bound="Row")


class Row(BaseModel):
    """Base of every kind: immutable, knows its line."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    line: int = Field(default=0, exclude=True)
    """1-based line number in its file; 0 for a row that comes from none."""
    category: str | None = None
    group: str | None = Field(default=None, validation_alias=AliasChoices("group", "group_id", "template"))
    """Rows of one family, such as one template: a split keeps them on one side."""

    @property
    def skill(self) -> str | None:
        return skill_group(self.category)

    @field_validator("*", mode="after")
    @classmethod
    def _texts_are_unicode(cls, value: Any) -> Any:
        return checked_unicode(value) if isinstance(value, str) else value

    @field_validator(
        "user",
        "assistant",
        "system",
        "prompt",
        "chosen",
        "rejected",
        "category",
        "group",
        check_fields=False,
    )
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be empty")
        return value

    def to_json(self) -> str:
        """One JSONL line with the fields that differ from their defaults."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False)


class TaskRow(Row):
    """A row that teaches or asks something."""

    answerable: bool = True
    """False: the right reply is to say that it does not know."""
    curriculum_stage: str | None = None
    answer_style: str | None = None
    provenance: str | None = None
    """Where the row comes from: a generator, a file, or `hf:<dataset>@<commit>/<split>#<row>`."""
    license: str | None = None
    mixture_profile: str | None = None
    """Task mixture that the row was made for, which part of it, and of what profile that part is."""
    mixture_component: str | None = None
    mixture_benchmark_profile: str | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A line that is no row."""

    line: int
    message: str


def checked_unicode(text: str) -> str:
    """`text`, if it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair; write the whole character") from error
    return text


def scan(path: Path, name: str, model: type[R]) -> Iterator[R | Problem]:
    """Every row of a JSONL file, and in place of a bad line its problem."""
    for number, line in enumerate(read_utf8(path, name).split("\n"), start=1):
        if line.strip():
            yield parse(line, number, model)


def read(path: Path, name: str, model: type[R]) -> list[R]:
    """Rows of a JSONL file; raise `bad_row` with the number of the first bad line, or where there is no row."""
    rows: list[R] = []
    for row in scan(path, name, model):
        if isinstance(row, Problem):
            raise ContractError(Code.BAD_ROW, f"{name}, line {row.line}: {row.message}", param=name)
        rows.append(row)
    if not rows:
        raise ContractError(
            Code.BAD_ROW, f"{name} has no rows: expected one JSON object per line", param=name
        )
    return rows


def parse(line: str, number: int, model: type[R]) -> R | Problem:
    """One line as a row of kind `model`."""
    try:
        raw = parsed_row(line)
    except (ValueError, RecursionError) as error:
        return Problem(line=number, message=f"not JSON ({error})")
    if not isinstance(raw, dict):
        return Problem(line=number, message=f"expected a JSON object, got {type(raw).__name__}")
    return build({**raw, "line": number}, model)


def parsed_row(line: str) -> Any:
    """The JSON value of a line; ValueError also where an object has a key twice, of which one would be lost."""
    return json.loads(line, object_pairs_hook=_without_repeats)


def build(values: dict[str, Any], model: type[R]) -> R | Problem:
    """A row from its fields, `line` among them."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = str(first.get("ctx", {}).get("error") or _plain(dict(first)))
        return Problem(line=values["line"], message=f"{field + ': ' if field else ''}{message}")


def numbered(rows: Iterable[R]) -> list[R]:
    """Rows with the line numbers that they have in a new file."""
    return [row.model_copy(update={"line": line}) for line, row in enumerate(rows, start=1)]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {repeated!r} twice in one object")
    return made


def _plain(error: dict[str, Any]) -> str:
    """What pydantic says, in the words of JSON and with the value that came."""
    match error["type"]:
        case "extra_forbidden":
            return "no such key, or a second name of a key that is given"
        case "missing":
            return str(error["msg"])
        case _:
            came = error["input"]
            shown = (
                repr(came)[:SHOWN_CHARACTERS] if isinstance(came, str | int | float) else type(came).__name__
            )
            message = str(error["msg"]).replace("Input should be", "expected").replace("tuple", "list")
            return f"{message}; got {shown}"


def to_jsonl(rows: Iterable[Row]) -> str:
    return "".join(f"{row.to_json()}\n" for row in rows)
