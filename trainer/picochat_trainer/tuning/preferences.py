"""Preference JSONL: a prompt, a chosen and a rejected answer. Input of DPO, compared with the eval like everything."""

import re
import unicodedata
from pathlib import Path
from typing import Any, Final, Self

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from picochat_trainer.tuning.row import Row, read

ALIASES: Final = {
    "prompt": ("prompt", "user"),
    "chosen": ("chosen", "preferred", "winner"),
    "rejected": ("rejected", "dispreferred", "loser"),
}
_FORM: Final = re.compile(r"[\s.,;:!?\"'`\u2018-\u201d]+")


class PreferenceRow(Row):
    """One pair of answers."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    prompt: str = Field(validation_alias=AliasChoices(*ALIASES["prompt"]))
    chosen: str = Field(validation_alias=AliasChoices(*ALIASES["chosen"]))
    rejected: str = Field(validation_alias=AliasChoices(*ALIASES["rejected"]))
    rejection: str | None = None
    """How a generated rejected answer was made wrong."""

    @model_validator(mode="before")
    @classmethod
    def _one_name_each(cls, raw: Any) -> Any:
        for field, names in ALIASES.items():
            given = [name for name in names if isinstance(raw, dict) and name in raw]
            if len({str(raw[name]) for name in given}) > 1:
                raise ValueError(f"{' and '.join(given)} are names of one field and differ; keep {field}")
        return raw

    @model_validator(mode="after")
    def _answers_differ(self) -> Self:
        if same_answer(self.chosen, self.rejected):
            raise ValueError(
                "chosen and rejected are the same answer but for case, spaces and punctuation; "
                "a pair must differ in what it says"
            )
        return self


def same_answer(one: str, other: str) -> bool:
    """True if the answers differ at most in case, spaces and sentence punctuation; signs of code and maths count."""
    return _form(one) == _form(other)


def read_preferences(path: Path, name: str | None = None) -> list[PreferenceRow]:
    """Rows of a preference JSONL file; raise `bad_row` with the line number."""
    return read(path, name or path.name, PreferenceRow)


def _form(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _FORM.sub(" ", folded).strip() or text.strip()
