"""A part of a dataset pack: the rows of some categories or curriculum stages, each on the side where it was.

Lines are copied as they are. The corpus, its licence and the external benchmarks stay the same, by paths that still
resolve from the new folder.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from picochat_contract.errors import Code, ContractError
from picochat_contract.packs import DatasetPack, PackCorpus

from picochat_trainer.atomic import write_text
from picochat_trainer.data.imports.outputs import PACK, relative_to, write_dataset_file
from picochat_trainer.data.sources import read_utf8
from picochat_trainer.tuning.packs.files import PackFiles
from picochat_trainer.tuning.preferences import PreferenceRow
from picochat_trainer.tuning.promotion import PackKey
from picochat_trainer.tuning.row import Row, TaskRow, read
from picochat_trainer.tuning.rows import ChatRow, EvalItem

REPORT: Final = "tuning_slice.md"
FILES: Final[dict[PackKey, str]] = {
    "chat": "chat.jsonl",
    "eval": "eval.jsonl",
    "preferences": "preferences.jsonl",
}
MODELS: Final[dict[PackKey, type[Row]]] = {
    "chat": ChatRow,
    "eval": EvalItem,
    "preferences": PreferenceRow,
}
NO_CATEGORY: Final = "none"
Keep = Callable[[Row], bool]


@dataclass(frozen=True, kw_only=True)
class SlicedFile:
    """What of one file was kept."""

    lines: tuple[str, ...]
    kept: Counter[str]
    """Rows by category."""
    left_out: Counter[str]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A new pack."""

    path: Path
    files: Mapping[PackKey, SlicedFile]


def by_category(include: Sequence[str], exclude: Sequence[str]) -> Keep:
    """Rows whose category a glob of `include` (none: all) and none of `exclude` matches; `none` is no category."""

    def keep(row: Row) -> bool:
        category = row.category or NO_CATEGORY
        wanted = not include or any(fnmatchcase(category, glob) for glob in include)
        return wanted and not any(fnmatchcase(category, glob) for glob in exclude)

    return keep


def by_stage(stages: Sequence[str]) -> Keep:
    """Rows whose curriculum stage a glob of `stages` matches; preferences have no stage."""

    def keep(row: Row) -> bool:
        stage = row.curriculum_stage if isinstance(row, TaskRow) else None
        return any(fnmatchcase(stage or NO_CATEGORY, glob) for glob in stages)

    return keep


def planned_files(out_dir: Path) -> list[Path]:
    """Everything that `write_slice` may write."""
    return [out_dir / name for name in (PACK, REPORT, *FILES.values())]


def write_slice(
    source: PackFiles,
    out_dir: Path,
    keep: Keep,
    *,
    name: str | None,
    description: str | None,
    rule: str,
) -> Slice:
    """Write the pack of the rows that `keep` keeps; raise `bad_row` where no SFT row or no eval item is left."""
    if out_dir.resolve() == source.path.resolve().parent:
        raise ContractError(
            Code.INVALID_VALUE,
            f"{out_dir} is the folder of the pack itself; give another --out-dir",
            param="--out-dir",
        )
    sliced = {key: _sliced(key, path, keep) for key in FILES if (path := source.rows_path(key)) is not None}
    for key in ("chat", "eval"):
        _check_not_empty(source, sliced.get(key), key, rule)
    kept = {key: found for key, found in sliced.items() if found.lines}
    for key, file_name in FILES.items():
        (out_dir / file_name).unlink(missing_ok=True)  # of a slice before
        if key in kept:
            write_text(out_dir / file_name, "".join(f"{line}\n" for line in kept[key].lines))
    path = out_dir / PACK
    write_dataset_file(path, _pack(source, path, kept, name, description))
    made = Slice(path=path, files=sliced)
    write_text(out_dir / REPORT, _markdown(source, made, rule))
    return made


def _sliced(key: PackKey, path: Path, keep: Keep) -> SlicedFile:
    rows = read(path, path.name, MODELS[key])
    lines = read_utf8(path, path.name).split("\n")
    kept = [row for row in rows if keep(row)]
    lines_kept = {row.line for row in kept}
    return SlicedFile(
        lines=tuple(lines[row.line - 1] for row in kept),
        kept=Counter(row.category or NO_CATEGORY for row in kept),
        left_out=Counter(row.category or NO_CATEGORY for row in rows if row.line not in lines_kept),
    )


def _check_not_empty(source: PackFiles, found: SlicedFile | None, key: PackKey, rule: str) -> None:
    if found is None:
        raise ContractError(
            Code.INVALID_VALUE,
            f"{source.path} names no {key} rows to take a part of; make some with `picochat data task-pack --pack "
            f"{source.path}`",
            param=key,
        )
    if not found.lines:
        there = ", ".join(sorted(found.left_out))
        raise ContractError(
            Code.BAD_ROW,
            f"no row of {key} is left by {rule}; its categories are {there}",
            param=key,
        )


def _pack(
    source: PackFiles,
    path: Path,
    kept: Mapping[PackKey, SlicedFile],
    name: str | None,
    description: str | None,
) -> DatasetPack:
    old, folder = source.pack, source.path.absolute().parent

    def moved(value: str | None) -> str | None:
        return None if value is None else relative_to(folder / Path(value).expanduser(), path)

    values: dict[str, Any] = {
        "name": name or f"{old.name or 'pack'}-slice",
        "description": description or old.description,
        "corpus": PackCorpus(input=moved(old.corpus.input), recipe=moved(old.corpus.recipe)),
        "license": old.license,
        **{key: FILES[key] for key in kept},
    }
    if old.external:
        values["external"] = {benchmark: moved(value) for benchmark, value in old.external.items()}
    return DatasetPack(**values)


def _markdown(source: PackFiles, made: Slice, rule: str) -> str:
    lines = ["# Tuning slice", "", f"- pack: {source.path}", f"- rule: {rule}", ""]
    for key, found in made.files.items():
        lines += [
            f"## {key}: {len(found.lines)} of {found.kept.total() + found.left_out.total()} rows",
            "",
            "| category | kept | left out |",
            "|---|---:|---:|",
            *(
                f"| {category} | {found.kept[category]} | {found.left_out[category]} |"
                for category in sorted({*found.kept, *found.left_out})
            ),
            "",
        ]
    return "\n".join(lines)
