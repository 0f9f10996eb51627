"""Command-line options that name data, put into the `dataset` section of a run spec: a pack stands below single files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from picochat_client.packs import dataset_settings
from picochat_contract.errors import Code, SpecError

BENCHMARK_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")


def with_dataset_options(
    values: Mapping[str, Any],
    *,
    pack: Path | None,
    recipe: Path | None,
    sources: Sequence[Path],
    rows: Mapping[str, Path | None],
    external: Sequence[str],
) -> dict[str, Any]:
    """`values` with a dataset section in which options win over pack or recipe, and these over the spec's own."""
    if pack is not None and recipe is not None:
        raise SpecError(
            Code.INVALID_VALUE,
            "--dataset-pack and --corpus-recipe both name a corpus; give one of them",
            param="dataset_pack",
        )
    dataset: dict[str, Any] = dict(values.get("dataset") or {})
    named = pack or recipe
    if named is not None:
        dataset |= dataset_settings(named)
    if sources:
        dataset["sources"] = [_file(path) for path in sources]
    dataset |= {name: _file(path) for name, path in rows.items() if path is not None}
    if external:
        named_files = {name: _file(path) for name, path in map(parse_benchmark, external)}
        dataset["external"] = {**dataset.get("external", {}), **named_files}
    return {**values, "dataset": dataset} if dataset else dict(values)


def parse_benchmark(option: str) -> tuple[str, Path]:
    """`name=path` of `--external-eval`; raise SpecError."""
    name, equals, path = option.partition("=")
    if not equals or not path or not BENCHMARK_NAME.fullmatch(name):
        raise SpecError(
            Code.INVALID_VALUE,
            f"--external-eval {option!r}: expected name=path, the name of letters, digits, '_' and '-', such as "
            "arc=arc_test.jsonl",
            param="external_eval",
        )
    return name, Path(path)


def _file(path: Path) -> dict[str, str]:
    return {"type": "file", "path": str(path)}
