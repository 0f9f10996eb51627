"""From a run spec on disk to one that can be sent: checked here first, its files uploaded.

A server never opens a path that a client names, so every `type: file` source becomes `type: artifact`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat_contract.canonical import canonical_json
from picochat_contract.data_configs import CORPUS_SUFFIXES, ArtifactSource, FileSource
from picochat_contract.errors import Code, SpecError
from picochat_contract.overrides import with_setting
from picochat_contract.spec import RunSpec, parse_mapping, read_mapping

from picochat_client._transfer import Progress, file_sha256
from picochat_client.artifacts import Artifacts

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
    spec = parse_mapping(raw)
    _check_json(raw)
    return LocalSpec(raw=raw, spec=spec, folder=path.parent)


def located_files(local: LocalSpec) -> dict[str, Any]:
    """The spec with every file path absolute, for a run on this machine; SpecError where one is missing."""
    files, dataset = _Files(local.folder), local.spec.dataset
    located: dict[str, Any] = {
        name: files.located(given, f"dataset.{name}")
        for name, given in (("chat", dataset.chat), ("eval", dataset.eval))
        if isinstance(given, FileSource)
    }
    if any(isinstance(source, FileSource) for source in dataset.sources):
        located["sources"] = [
            files.located(source, "dataset.sources")
            if isinstance(source, FileSource)
            else source.model_dump(mode="json", exclude_none=True)
            for source in dataset.sources
        ]
    return _with_dataset(local.raw, located)


def prepare_spec(
    path: Path, artifacts: Artifacts, settings: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Read and check the spec at `path`, upload the files that it names, return what `runs.submit` takes."""
    local = read_spec(path, settings)
    files = _Files(local.folder)
    dataset = local.spec.dataset
    sources = [source for given in dataset.sources for source in files.corpus(given)]
    rewritten: dict[str, Any] = {}
    if any(isinstance(source, FileSource) for source in dataset.sources):
        rewritten["sources"] = [source.model_dump(mode="json", exclude_none=True) for source in sources]
    for name in ("chat", "eval"):
        given = getattr(dataset, name)
        if isinstance(given, FileSource):
            rewritten[name] = files.rows(given, name).model_dump(mode="json", exclude_none=True)
    if not rewritten:
        return dict(local.raw)
    artifacts.upload_all(files.digests, progress)
    return _with_dataset(local.raw, rewritten)


def _with_dataset(raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {**raw, "dataset": {**(raw.get("dataset") or {}), **values}} if values else dict(raw)


class _Files:
    """Local files that a spec names, each hashed once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.digests: dict[Path, str] = {}

    def corpus(self, source: Any) -> Sequence[Any]:
        if not isinstance(source, FileSource):
            return [source]
        path = self._locate(source.path, "dataset.sources")
        if not path.is_dir():
            _check_suffix(path)
            return [self._artifact(path, path.name, source, "dataset.sources")]
        found = [file for file in path.rglob("*") if _is_corpus_file(file, path)]
        if not found:
            raise SpecError(
                Code.CORPUS_MISSING,
                f"dataset.sources: the folder {str(path)!r} holds no {', '.join(CORPUS_SUFFIXES)} file",
                param="dataset.sources",
            )
        return [
            self._artifact(file, file.relative_to(path).as_posix(), source, "dataset.sources")
            for file in sorted(found, key=lambda file: file.relative_to(path).parts)
        ]

    def located(self, source: FileSource, param: str) -> dict[str, Any]:
        found = source.model_copy(update={"path": str(self._locate(source.path, param))})
        return found.model_dump(mode="json", exclude_none=True)

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
        """A relative path starts at the spec's folder or, failing that, at the working directory."""
        given = Path(name).expanduser()
        tried = list(dict.fromkeys([(self._folder / given).absolute(), given.absolute()]))
        for path in tried:
            if path.exists():
                return path
        raise SpecError(
            Code.CORPUS_MISSING,
            f"{param}: there is no file or folder {name!r} (looked for {' and '.join(map(str, tried))})",
            param=param,
        )

    def _artifact(self, path: Path, name: str, source: FileSource, param: str) -> ArtifactSource:
        if path not in self.digests:
            try:
                self.digests[path] = file_sha256(path)
            except OSError as error:
                raise SpecError(
                    Code.FILE_UNREADABLE, f"{param}: cannot read {str(path)!r}: {_reason(error)}", param=param
                ) from error
        plain = _NOT_IN_A_NAME.sub("_", name)[-200:]
        plain = f"_{plain[1:]}" if plain[0] in ".-" else plain
        return ArtifactSource(type="artifact", digest=self.digests[path], name=plain, label=source.label)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in CORPUS_SUFFIXES:
        raise SpecError(
            Code.FILE_UNREADABLE,
            f"dataset.sources: {str(path)!r} should be one of {', '.join(CORPUS_SUFFIXES)}; convert it to text",
            param="dataset.sources",
        )


def _is_corpus_file(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden and file.suffix.lower() in CORPUS_SUFFIXES


def _check_json(raw: Mapping[str, Any]) -> None:
    try:
        canonical_json(raw)
    except (TypeError, ValueError) as error:
        raise SpecError(
            Code.INVALID_VALUE, f"the run spec holds a value that JSON cannot carry: {error}"
        ) from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else f"it is not UTF-8 ({error})"
