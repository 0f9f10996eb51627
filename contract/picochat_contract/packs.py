"""Two JSON (or YAML) files that name a whole dataset: the dataset pack and the corpus recipe.

A pack says which corpus, chat, eval, preference and benchmark files belong together; a recipe says what a corpus is
mixed from. Paths are relative to the file that holds them; the client resolves them. Unknown keys are refused.
"""

from typing import Any

from pydantic import Field, field_validator, model_validator

from picochat_contract.config_base import Config
from picochat_contract.data_configs import Glob, ReadOptions, checked_benchmark_name
from picochat_contract.errors import Code, SpecError
from picochat_contract.spec import validated

_LONG_NAMES = {"chat_input": "chat", "eval_input": "eval"}


class PackCorpus(Config):
    """Where a pack's corpus comes from: exactly one of the two."""

    input: str | None = Field(default=None, min_length=1)
    """File or folder."""
    recipe: str | None = Field(default=None, min_length=1)
    """A corpus recipe."""

    @model_validator(mode="after")
    def _is_one_of_two(self) -> "PackCorpus":
        if (self.input is None) == (self.recipe is None):
            raise SpecError(Code.INVALID_VALUE, "give exactly one of input and recipe", param="corpus")
        return self


class DatasetPack(Config):
    """`dataset_pack.json`: the files of one dataset."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=5000)
    corpus: PackCorpus
    """A path, or an object with `input` or `recipe`."""
    chat: str | None = Field(default=None, min_length=1)
    """Chat JSONL; `chat_input` is another name. Without chat and eval, release-skill rows are generated."""
    eval: str | None = Field(default=None, min_length=1)
    """Eval JSONL; `eval_input` is another name."""
    preferences: str | None = Field(default=None, min_length=1)
    external: dict[str, str] = {}
    """External benchmarks by name."""
    license: str | None = Field(default=None, max_length=200)
    """Licence of every source of the corpus that names none itself."""

    @model_validator(mode="before")
    @classmethod
    def _use_short_names(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        for long, short in _LONG_NAMES.items():
            if long in raw and short in raw:
                raise SpecError(
                    Code.INVALID_VALUE, f"{short} and {long} are one key; give it once", param=long
                )
        return {_LONG_NAMES.get(key, key): value for key, value in raw.items()}

    @field_validator("external")
    @classmethod
    def _names_can_be_files(cls, external: dict[str, str]) -> dict[str, str]:
        for name in external:
            checked_benchmark_name(name)
        return external

    @field_validator("corpus", mode="before")
    @classmethod
    def _path_is_input(cls, raw: Any) -> Any:
        return {"input": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _has_rows_for_both_or_none(self) -> "DatasetPack":
        if (self.chat is None) != (self.eval is None):
            given, missing = ("chat", "eval") if self.eval is None else ("eval", "chat")
            raise SpecError(
                Code.INVALID_VALUE,
                f"the pack gives {given} but no {missing}; give both, or neither to have release-skill rows generated",
                param=missing,
            )
        return self


class RecipeSource(ReadOptions):
    """One source of a recipe: a path, or an object."""

    path: str = Field(min_length=1)
    include: bool | tuple[Glob, ...] = True
    """False leaves the source out and lists it; globs keep what they match below a folder."""
    exclude: tuple[Glob, ...] = ()
    reason: str | None = Field(default=None, max_length=500)
    """Why the source, or a part of it, is left out."""

    @field_validator("include", mode="before")
    @classmethod
    def _is_flag_or_list(cls, raw: Any) -> Any:
        if not isinstance(raw, bool | list | tuple):
            raise ValueError(f"expected true, false or a list of globs; got {raw!r}")
        return raw


class CorpusRecipe(Config):
    """What a corpus is mixed from, in order."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=5000)
    sources: tuple[RecipeSource, ...] = Field(min_length=1)
    exclude: tuple[Glob, ...] = ()
    """Globs that are left out of every source."""

    @field_validator("sources", mode="before")
    @classmethod
    def _paths_are_sources(cls, raw: Any) -> Any:
        if not isinstance(raw, list | tuple):
            return raw
        return [{"path": source} if isinstance(source, str) else source for source in raw]


def parse_dataset_file(raw: dict[str, Any]) -> DatasetPack | CorpusRecipe:
    """Validate the content of a pack or of a recipe, told apart by their keys; raise SpecError."""
    if "sources" in raw:
        return validated(CorpusRecipe, raw)
    if "corpus" in raw:
        return validated(DatasetPack, raw)
    given = ", ".join(map(str, raw)) or "none"
    raise SpecError(
        Code.INVALID_VALUE,
        f"expected the key corpus (a dataset pack) or sources (a corpus recipe); its keys are: {given}",
    )
