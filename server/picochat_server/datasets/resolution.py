"""What a run spec that names datasets really reads.

A dataset among the sources stands for its corpus files; in place of a row file it stands for its file of that role.
Stages get digests, never names, so a fingerprint changes exactly where the bytes do.
"""

from dataclasses import dataclass
from typing import Any

from picochat_contract.api_data import DatasetFileOut, DatasetOut, DatasetRole
from picochat_contract.data_configs import ArtifactSource, DatasetConfig, DatasetRef, FileRef, Source
from picochat_contract.errors import Code, SpecError
from picochat_contract.spec import RunSpec, validated
from sqlalchemy.orm import Session

from picochat_server.datasets import repository
from picochat_server.datasets.service import dataset_out

LIMITS = frozenset({"max_documents", "max_characters"})
OPTIONS = ("label", "license", "text_field", *sorted(LIMITS))


@dataclass(frozen=True, kw_only=True)
class Resolved:
    pinned: RunSpec
    """The spec as it was given, with the versions that its names stood for."""
    concrete: RunSpec
    """The spec with artifacts in place of datasets: what the stages get."""


def resolve(session: Session, project_id: str, spec: RunSpec) -> Resolved:
    """Look up every dataset that the spec names; SpecError `dataset_unknown` where there is none."""
    if not any(isinstance(reference, DatasetRef) for reference in spec.dataset.references):
        return Resolved(pinned=spec, concrete=spec)
    datasets = _Datasets(session, project_id)
    return Resolved(
        pinned=_with(spec, datasets.pinned(spec.dataset)),
        concrete=_with(spec, datasets.concrete(spec.dataset)),
    )


class _Datasets:
    """The datasets of one project, each looked up once."""

    def __init__(self, session: Session, project_id: str) -> None:
        self._session = session
        self._project_id = project_id
        self._found: dict[tuple[str, int | None], DatasetOut] = {}

    def pinned(self, config: DatasetConfig) -> dict[str, Any]:
        def pin(reference: Any, param: str) -> Any:
            if not isinstance(reference, DatasetRef):
                return reference
            return reference.model_copy(update={"version": self._find(reference, param).version})

        return {
            "sources": tuple(pin(source, "dataset.sources") for source in config.sources),
            "chat": pin(config.chat, "dataset.chat"),
            "eval": pin(config.eval, "dataset.eval"),
            "preferences": pin(config.preferences, "dataset.preferences"),
            "external": {
                name: pin(file, f"dataset.external.{name}") for name, file in config.external.items()
            },
        }

    def concrete(self, config: DatasetConfig) -> dict[str, Any]:
        return {
            "sources": tuple(found for source in config.sources for found in self._corpus(source)),
            "chat": self._rows(config.chat, "chat"),
            "eval": self._rows(config.eval, "eval"),
            "preferences": self._rows(config.preferences, "preferences"),
            "external": {name: self._external(name, file) for name, file in config.external.items()},
        }

    def _corpus(self, source: Source) -> list[Source]:
        if not isinstance(source, DatasetRef):
            return [source]
        dataset = self._find(source, "dataset.sources")
        files = [file for file in dataset.files if file.role == "corpus"]
        if not files:
            raise _lacks(dataset, "corpus", "dataset.sources")
        return [*(_with_options(file, source, dataset) for file in files), *dataset.left_out]

    def _rows(self, reference: FileRef | None, role: DatasetRole) -> FileRef | None:
        if not isinstance(reference, DatasetRef):
            return reference
        dataset = self._find(reference, f"dataset.{role}")
        file = next((file for file in dataset.files if file.role == role), None)
        if file is None:
            raise _lacks(dataset, role, f"dataset.{role}")
        return file.source()

    def _external(self, name: str, reference: FileRef) -> FileRef:
        if not isinstance(reference, DatasetRef):
            return reference
        dataset = self._find(reference, f"dataset.external.{name}")
        files = [file for file in dataset.files if file.role == "external"]
        file = next((file for file in files if file.label == name), files[0] if len(files) == 1 else None)
        if file is None:
            raise _lacks(dataset, f"external {name!r}", f"dataset.external.{name}")
        return file.source()

    def _find(self, reference: DatasetRef, param: str) -> DatasetOut:
        key = (reference.name, reference.version)
        if key not in self._found:
            row = repository.by_name(self._session, self._project_id, *key)
            if row is None:
                version = f" version {reference.version}" if reference.version else ""
                raise SpecError(
                    Code.DATASET_UNKNOWN,
                    f"{param}: this project has no dataset {reference.name!r}{version}; `picochat-client data list` "
                    "shows what it has, `picochat-client data push` adds one",
                    param=param,
                )
            self._found[key] = dataset_out(row)
        return self._found[key]


def _with(spec: RunSpec, dataset: dict[str, Any]) -> RunSpec:
    return spec.model_copy(update={"dataset": spec.dataset.model_copy(update=dataset)})


def _with_options(file: DatasetFileOut, source: DatasetRef, dataset: DatasetOut) -> ArtifactSource:
    """The file as pushed; what the spec says about the dataset goes before what was said at the push."""
    named = {option: getattr(source, option) for option in OPTIONS if getattr(source, option) is not None}
    below = {"label": dataset.name, "license": dataset.license}
    pushed = file.source().model_dump(exclude_none=True)
    group = file.group if LIMITS.isdisjoint(named) else "all"  # limits of the spec are for all files together
    return validated(
        ArtifactSource,
        {
            **below,
            **pushed,
            **named,
            "weight": file.weight * source.weight,
            "group": f"{dataset.digest[:12]}/{group}"
            if group
            else None,  # two datasets may name a group alike
        },
    )


def _lacks(dataset: DatasetOut, what: str, param: str) -> SpecError:
    roles = ", ".join(sorted({file.role for file in dataset.files}))
    return SpecError(
        Code.DATASET_UNKNOWN,
        f"{param}: dataset {dataset.name!r} version {dataset.version} has no {what} file; it has {roles}",
        param=param,
    )
