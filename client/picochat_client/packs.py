"""Dataset packs and corpus recipes on disk, as values for the `dataset` section of a run spec.

Paths in such a file are relative to the file. A source of a recipe that is not there is listed in the corpus's report
(`missing_source`), one with `include: false` too (`recipe_excluded`); any other missing file is an error that names
the key.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from picochat_contract.data_configs import FileRef, FileSource, Source
from picochat_contract.errors import Code, SpecError
from picochat_contract.packs import CorpusRecipe, DatasetPack, RecipeSource, parse_dataset_file
from picochat_contract.spec import read_mapping

ROW_KEYS: Final = ("chat", "chat_input", "eval", "eval_input", "preferences", "external")


def dataset_settings(path: Path) -> dict[str, Any]:
    """Values for `dataset` from a pack or a recipe (`sources`, `chat`, `eval`, `preferences`, `external`, those that
    it gives), with absolute paths; raise SpecError."""
    found = read_dataset_file(path)
    if isinstance(found, CorpusRecipe):
        return {"sources": _recipe_sources(found, path, None)}
    settings: dict[str, Any] = {"sources": _pack_sources(found, path)}
    for name in ("chat", "eval", "preferences"):
        value = getattr(found, name)
        if value is not None:
            settings[name] = _rows(path, value, name)
    if found.external:
        settings["external"] = {
            name: _rows(path, value, f"external.{name}") for name, value in found.external.items()
        }
    return settings


def corpus_settings(path: Path) -> list[dict[str, Any]]:
    """The sources of a pack or recipe alone, also of a pack whose rows are still to be made; raise SpecError."""
    found = read_dataset_file(path, without=ROW_KEYS)
    if isinstance(found, CorpusRecipe):
        return _recipe_sources(found, path, None)
    return _pack_sources(found, path)


def rows_path(path: Path, name: str) -> Path | None:
    """Where the rows `name` (chat, eval or preferences) of a pack lie, also of a pack that lacks others."""
    raw = _mapping(path)
    given = raw.get(name) or raw.get(f"{name}_input")
    return _existing(path, given, name) if isinstance(given, str) else None


def read_dataset_file(path: Path, *, without: Collection[str] = ()) -> DatasetPack | CorpusRecipe:
    """The pack or recipe at `path` as it is written but for some keys; nothing that it names is looked for."""
    raw = _mapping(path)
    try:
        return parse_dataset_file({key: value for key, value in raw.items() if key not in without})
    except SpecError as error:
        raise SpecError(error.code, f"{path}: {error.message}", param=error.param) from error


def _mapping(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path.read_text(encoding="utf-8"), "dataset pack or recipe")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SpecError(
            Code.FILE_UNREADABLE, f"cannot read the dataset pack {str(path)!r}: {reason}", param=str(path)
        ) from error
    except SpecError as error:
        raise SpecError(error.code, f"{path}: {error.message}", param=error.param) from error


def expanded(name: str) -> Path:
    """The path with a home folder in place of `~`; `~name` of nobody is a name like any other."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def as_settings(source: Source | FileRef) -> dict[str, Any]:
    """A source as a run spec gives it: its type and what is not a default."""
    return {"type": source.type, **source.model_dump(mode="json", exclude_defaults=True)}


def _pack_sources(pack: DatasetPack, path: Path) -> list[dict[str, Any]]:
    if pack.corpus.recipe is not None:
        recipe_path = _existing(path, pack.corpus.recipe, "corpus.recipe")
        recipe = read_dataset_file(recipe_path)
        if not isinstance(recipe, CorpusRecipe):
            raise SpecError(
                Code.INVALID_VALUE,
                f"{path}: corpus.recipe: {str(recipe_path)!r} is a dataset pack; expected a corpus recipe (key "
                "sources)",
                param="corpus.recipe",
            )
        return _recipe_sources(recipe, recipe_path, pack.license)
    assert pack.corpus.input is not None
    found = _existing(path, pack.corpus.input, "corpus.input")
    return [as_settings(FileSource(type="file", path=str(found), license=pack.license))]


def _recipe_sources(recipe: CorpusRecipe, path: Path, license: str | None) -> list[dict[str, Any]]:
    return [as_settings(_recipe_source(source, recipe, path, license)) for source in recipe.sources]


def _recipe_source(source: RecipeSource, recipe: CorpusRecipe, path: Path, license: str | None) -> FileSource:
    excluded = source.include is False
    return FileSource(
        **source.model_dump(exclude={"path", "include", "exclude", "license"}, exclude_unset=True),
        type="file",
        path=str(_resolved(path, source.path)),
        license=source.license or license,
        include=() if isinstance(source.include, bool) else source.include,
        exclude=("**",) if excluded else (*source.exclude, *recipe.exclude),
        optional=True,
    )


def _rows(path: Path, name: str, param: str) -> dict[str, Any]:
    return as_settings(FileSource(type="file", path=str(_existing(path, name, param))))


def _existing(path: Path, name: str, param: str) -> Path:
    found = _resolved(path, name)
    if not found.exists():
        raise SpecError(
            Code.CORPUS_MISSING,
            f"{path}: {param}: there is no file or folder {str(found)!r}; paths start at the folder of this file",
            param=param,
        )
    return found


def _resolved(path: Path, name: str) -> Path:
    # Not resolve(): a link keeps its own name in the records.
    return (path.absolute().parent / expanded(name)).absolute()
