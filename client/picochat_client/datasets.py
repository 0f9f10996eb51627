"""Datasets: files pushed once under a versioned name, which run specs then give instead of digests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
from picochat_contract.api import Page
from picochat_contract.api_data import (
    DatasetFileIn,
    DatasetIn,
    DatasetKind,
    DatasetOut,
    DatasetRole,
    DatasetSummary,
)
from picochat_contract.data_configs import (
    ArtifactSource,
    DatasetConfig,
    DatasetRef,
    FileRef,
    LeftOutSource,
    Source,
)
from picochat_contract.errors import Code, SpecError
from picochat_contract.spec import validated

from picochat_client._http import Http
from picochat_client._transfer import Progress
from picochat_client.artifacts import Artifacts
from picochat_client.packs import dataset_settings
from picochat_client.specs import upload_dataset

PACK_SUFFIXES = (".json", ".yaml", ".yml")
ROW_ROLES: tuple[DatasetRole, ...] = ("chat", "eval", "preferences")


class Pushed(NamedTuple):
    dataset: DatasetOut
    is_new: bool
    """False: the newest version of this name held the same already."""


class Datasets:
    def __init__(self, http: Http, artifacts: Artifacts) -> None:
        self._http = http
        self._artifacts = artifacts

    def push(
        self,
        name: str,
        files: DatasetConfig,
        *,
        description: str = "",
        license: str | None = None,
        progress: Progress | None = None,
    ) -> Pushed:
        """Upload what `files` names (see `local_files`) and make it the next version of `name`.

        Only bytes that the server lacks are sent, and a cut upload goes on where it broke off.
        """
        asked = {"name": name, "description": description, "license": license}
        validated(DatasetIn, {**asked, "files": [_PLACEHOLDER]})  # before anything is sent
        stored = upload_dataset(files, self._artifacts, progress)
        body = validated(DatasetIn, {**asked, **_file_list(stored)})
        answer = self._http.request(
            "POST", "/datasets", json=body.model_dump(mode="json", exclude_defaults=True), repeatable=True
        )
        return Pushed(self._http.parse(answer, DatasetOut), answer.status_code == httpx.codes.CREATED)

    def list(self, *, name: str | None = None) -> Iterator[DatasetSummary]:
        """All versions, newest first; pages are fetched as they are needed."""
        return self._http.pages("/datasets", Page[DatasetSummary], {"name": name} if name else None)

    def get(self, dataset: str) -> DatasetOut:
        """A version by its id, ds_..."""
        return self._http.get(f"/datasets/{quote(dataset, safe='')}", DatasetOut)

    def find(self, name: str, version: int | None = None) -> DatasetOut:
        """A version by its name, the newest where none is given."""
        params = {"version": version} if version is not None else None
        return self._http.get(f"/datasets/by-name/{quote(name, safe='')}", DatasetOut, params)


def local_files(path: Path, *, kind: DatasetKind | None = None, name: str = "") -> DatasetConfig:
    """What `path` on this machine holds, by role; SpecError where it does not fit.

    A .json or .yaml file is a dataset pack or a corpus recipe; any other file or folder is a corpus unless `kind`
    says otherwise. An external benchmark is called `name`.
    """
    if not path.exists():
        raise SpecError(
            Code.CORPUS_MISSING, f"there is no file or folder {str(path)!r} to push", param=str(path)
        )
    if kind == "pack" or (kind is None and path.suffix.lower() in PACK_SUFFIXES):
        return validated(DatasetConfig, dataset_settings(path))
    file = {"type": "file", "path": str(path.absolute())}
    if kind == "external":
        return validated(DatasetConfig, {"external": {name: file}})
    return validated(DatasetConfig, {"sources": [file]} if kind in (None, "corpus") else {kind: file})


def dataset_section(dataset: DatasetOut) -> dict[str, Any]:
    """The `dataset` section of a run spec that reads everything of this version."""
    ref = {"type": "dataset", "name": dataset.name, "version": dataset.version}
    roles = {file.role for file in dataset.files}
    section: dict[str, Any] = {"sources": [ref]} if "corpus" in roles else {}
    section |= {role: ref for role in ROW_ROLES if role in roles}
    if names := [file.label for file in dataset.files if file.role == "external" and file.label]:
        section["external"] = dict.fromkeys(names, ref)
    return section


def parse_reference(text: str) -> DatasetRef:
    """`NAME` or `NAME@VERSION`; SpecError for anything else."""
    name, at, version = text.partition("@")
    if at and not (version.isascii() and version.isdigit()):
        raise SpecError(
            Code.INVALID_VALUE,
            f"{text!r}: expected NAME or NAME@VERSION with a whole number, such as docs@3",
            param="name",
        )
    return validated(DatasetRef, {"type": "dataset", "name": name, "version": int(version) if at else None})


_PLACEHOLDER = {"role": "corpus", "path": "x", "digest": "0" * 64}


def _file_list(stored: DatasetConfig) -> dict[str, Any]:
    left_out = [source for source in stored.sources if isinstance(source, LeftOutSource)]
    return {"files": list(_files(stored)), "left_out": left_out}


def _files(stored: DatasetConfig) -> Iterator[DatasetFileIn]:
    for source in stored.sources:
        yield from _file("corpus", source)
    for role in ROW_ROLES:
        yield from _file(role, getattr(stored, role))
    for name, reference in stored.external.items():
        yield from _file("external", reference, label=name)


def _file(role: DatasetRole, source: Source | FileRef | None, **changes: str) -> Iterator[DatasetFileIn]:
    """One file where an upload is named; nothing for sources that are no files, such as pydoc."""
    if isinstance(source, ArtifactSource):
        options = source.model_dump(exclude={"type", "name"})
        yield DatasetFileIn.model_validate({**options, "role": role, "path": source.name, **changes})
