"""From a run spec on disk to one that can be sent: checked here first, its files uploaded.

A server never opens a path that a client names, so every `type: file` source becomes `type: artifact`. The key
`dataset.pack` names a dataset pack or a corpus recipe; its values stand below the spec's own and the key is gone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat_contract.canonical import canonical_json
from picochat_contract.data_configs import (
    COMPRESSIONS,
    CORPUS_SUFFIXES,
    ArtifactSource,
    DatasetConfig,
    FileSource,
    LeftOutSource,
    SourceOptions,
)
from picochat_contract.errors import Code, SpecError
from picochat_contract.overrides import with_setting
from picochat_contract.spec import RunSpec, parse_mapping, read_mapping, validated

from picochat_client._transfer import Progress, file_sha256
from picochat_client.artifacts import Artifacts
from picochat_client.folders import EXCLUDED, LINK_OUTSIDE, MISSING, is_excluded, is_read, walk
from picochat_client.packs import as_settings, dataset_settings, expanded

MAX_LISTED = 100
"""Left-out files of a folder that an uploaded spec names one by one."""
_LISTED = (EXCLUDED, MISSING, LINK_OUTSIDE)
_ROWS = ("chat", "eval", "preferences")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, kw_only=True)
class LocalSpec:
    """A spec that was read and found good; nothing was sent yet."""

    raw: Mapping[str, Any]
    spec: RunSpec
    folder: Path
    """Where relative paths of the spec start."""


def read_spec(path: Path, settings: Sequence[str] = ()) -> LocalSpec:
    """Read YAML or JSON, apply `key.path=value` settings, validate; raise SpecError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            Code.FILE_UNREADABLE, f"cannot read the run spec {str(path)!r}: {_reason(error)}", param=str(path)
        ) from error
    raw = read_mapping(text)
    for setting in settings:
        raw = with_setting(raw, setting)
    raw = _with_pack(raw, path.parent)
    spec = parse_mapping(raw)
    _check_json(raw)
    return LocalSpec(raw=raw, spec=spec, folder=path.parent)


def located_files(local: LocalSpec) -> dict[str, Any]:
    """The spec with every file path absolute, for a run on this machine; SpecError where one is missing."""
    files, dataset = _Files(local.folder), local.spec.dataset
    located: dict[str, Any] = {
        name: files.located(given, f"dataset.{name}")
        for name in _ROWS
        if isinstance(given := getattr(dataset, name), FileSource)
    }
    if any(isinstance(given, FileSource) for given in dataset.external.values()):
        located["external"] = {
            name: files.located(given, f"dataset.external.{name}")
            if isinstance(given, FileSource)
            else as_settings(given)
            for name, given in dataset.external.items()
        }
    if any(isinstance(source, FileSource) for source in dataset.sources):
        located["sources"] = [
            files.located(source, "dataset.sources")
            if isinstance(source, FileSource)
            else as_settings(source)
            for source in dataset.sources
        ]
    return _with_dataset(local.raw, located)


def prepare_spec(
    path: Path, artifacts: Artifacts, settings: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Read and check the spec at `path`, upload the files that it names, return what `runs.submit` takes."""
    local = read_spec(path, settings)
    files = _Files(local.folder)
    rewritten = _uploads(local.spec.dataset, files)
    if not rewritten:
        return dict(local.raw)
    artifacts.upload_all(files.digests, progress)
    return _with_dataset(local.raw, rewritten)


def upload_dataset(
    dataset: DatasetConfig, artifacts: Artifacts, progress: Progress | None = None
) -> DatasetConfig:
    """The dataset with its files uploaded and their digests in place of paths."""
    files = _Files(Path())
    rewritten = _uploads(dataset, files)
    artifacts.upload_all(files.digests, progress)
    return validated(DatasetConfig, {**dataset.model_dump(mode="json"), **rewritten})


def _uploads(dataset: DatasetConfig, files: "_Files") -> dict[str, Any]:
    """Values of the dataset section that name files, with digests in their place; the files are hashed."""
    rewritten: dict[str, Any] = {}
    if any(isinstance(source, FileSource) for source in dataset.sources):
        rewritten["sources"] = [
            as_settings(source)
            for index, given in enumerate(dataset.sources)
            for source in (files.corpus(given, index) if isinstance(given, FileSource) else [given])
        ]
    for name in _ROWS:
        given = getattr(dataset, name)
        if isinstance(given, FileSource):
            rewritten[name] = as_settings(files.rows(given, name))
    if any(isinstance(given, FileSource) for given in dataset.external.values()):
        rewritten["external"] = {
            name: as_settings(
                files.rows(given, f"external.{name}") if isinstance(given, FileSource) else given
            )
            for name, given in dataset.external.items()
        }
    return rewritten


def _with_pack(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    dataset = raw.get("dataset")
    if not isinstance(dataset, Mapping) or "pack" not in dataset:
        return dict(raw)
    own = {name: value for name, value in dataset.items() if name != "pack"}
    pack = dataset["pack"]
    if pack is None:
        return {**raw, "dataset": own}
    if not isinstance(pack, str):
        raise SpecError(
            Code.INVALID_VALUE,
            f"dataset.pack: expected the path of a dataset pack or corpus recipe; got {pack!r}",
            param="dataset.pack",
        )
    return {**raw, "dataset": {**dataset_settings(_located(folder, pack, "dataset.pack")), **own}}


def _with_dataset(raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {**raw, "dataset": {**(raw.get("dataset") or {}), **values}} if values else dict(raw)


class _Files:
    """Local files that a spec names, each hashed once."""

    def __init__(self, folder: Path) -> None:
        self._folder_of_spec = folder
        self.digests: dict[Path, str] = {}

    def corpus(self, source: FileSource, index: int) -> Sequence[ArtifactSource | LeftOutSource]:
        if source.optional and _found(self._folder_of_spec, source.path) is None:
            return [_left_out(source, Path(source.path).name, MISSING)]
        path = self._locate(source.path, "dataset.sources")
        if path.is_dir():
            return self._folder(path, source, index)
        if is_excluded(path.name, source.include, source.exclude):
            return [_left_out(source, path.name, EXCLUDED)]
        _check_suffix(path)
        return [self._artifact(path, path.name, source, "dataset.sources")]

    def _folder(self, path: Path, source: FileSource, index: int) -> Sequence[ArtifactSource | LeftOutSource]:
        found = list(walk(path, source.include, source.exclude))
        listed = [_left_out(source, file.name, file.reason) for file in found if file.reason in _LISTED]
        read = [file for file in found if file.reason is None]
        if not read and not listed:
            raise SpecError(
                Code.CORPUS_MISSING,
                f"dataset.sources: the folder {str(path)!r} holds no {', '.join(CORPUS_SUFFIXES)} file",
                param="dataset.sources",
            )
        # Limits are the whole folder's, not each file's.
        group = f"{index} {path.name}"[:200] if source.max_documents or source.max_characters else None
        return [
            *(self._artifact(file.path, file.name, source, "dataset.sources", group) for file in read),
            *listed[:MAX_LISTED],
        ]

    def located(self, source: FileSource, param: str) -> dict[str, Any]:
        if source.optional and _found(self._folder_of_spec, source.path) is None:
            return as_settings(source)
        return as_settings(source.model_copy(update={"path": str(self._locate(source.path, param))}))

    def rows(self, source: FileSource, name: str) -> ArtifactSource:
        param = f"dataset.{name}"
        path = self._locate(source.path, param)
        if not path.is_file():
            raise SpecError(
                Code.FILE_UNREADABLE,
                f"{param}: {str(path)!r} is a folder, expected one JSONL file",
                param=param,
            )
        return self._artifact(path, path.name, source, param)

    def _locate(self, name: str, param: str) -> Path:
        return _located(self._folder_of_spec, name, param)

    def _artifact(
        self, path: Path, name: str, source: FileSource, param: str, group: str | None = None
    ) -> ArtifactSource:
        if path not in self.digests:
            try:
                self.digests[path] = file_sha256(path)
            except OSError as error:
                raise SpecError(
                    Code.FILE_UNREADABLE, f"{param}: cannot read {str(path)!r}: {_reason(error)}", param=param
                ) from error
        plain = _NOT_IN_A_NAME.sub("_", name)[-200:]
        plain = f"_{plain[1:]}" if plain[0] in ".-" else plain
        return ArtifactSource(
            **_options(source),
            text_field=source.text_field,
            type="artifact",
            digest=self.digests[path],
            name=plain,
            group=group,
        )


def _located(folder: Path, name: str, param: str) -> Path:
    found = _found(folder, name)
    if found is None:
        looked = " and ".join(map(str, _places(folder, name)))
        raise SpecError(
            Code.CORPUS_MISSING,
            f"{param}: there is no file or folder {name!r} (looked for {looked})",
            param=param,
        )
    return found


def _found(folder: Path, name: str) -> Path | None:
    return next((path for path in _places(folder, name) if path.exists()), None)


def _places(folder: Path, name: str) -> list[Path]:
    """A relative path starts at the spec's folder or, failing that, at the working directory."""
    given = expanded(name)
    return list(dict.fromkeys([(folder / given).absolute(), given.absolute()]))


def _left_out(source: FileSource, name: str, reason: str | None) -> LeftOutSource:
    return LeftOutSource.model_validate(
        {**_options(source), "type": "left_out", "path": name, "reason": reason}
    )


def _options(source: SourceOptions) -> dict[str, Any]:
    """What may be said about any source, as it was given."""
    return {name: getattr(source, name) for name in SourceOptions.model_fields}


def _check_suffix(path: Path) -> None:
    if not is_read(path.name):
        raise SpecError(
            Code.FILE_UNREADABLE,
            f"dataset.sources: {str(path)!r} should be one of {', '.join(CORPUS_SUFFIXES)}, also with "
            f"{', '.join(COMPRESSIONS)}; convert it to text",
            param="dataset.sources",
        )


def _check_json(raw: Mapping[str, Any]) -> None:
    try:
        canonical_json(raw)
    except (TypeError, ValueError) as error:
        raise SpecError(
            Code.INVALID_VALUE, f"the run spec holds a value that JSON cannot carry: {error}"
        ) from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else f"it is not UTF-8 ({error})"
