"""Stored reports of a run as pages show them: read up to a limit, hashed again, and where that fails, the reason.

A report is what a worker sent about data of strangers. One that cannot be read is a sentence on the page, never an
error of the server.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from picochat_contract.api import ArtifactOut
from picochat_contract.errors import ContractError
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.orm import Session

from picochat_server.artifacts.json_files import Unusable, read_json
from picochat_server.artifacts.service import artifacts_of_run
from picochat_server.artifacts.store import LocalStore
from picochat_server.pages.formats import size

MAX_REPORT_BYTES = 16_000_000
"""Of one report in one request for a page; evidence of a gate may be larger."""
MAX_REMEMBERED = 128  # reports
Files = Mapping[str, ArtifactOut]


class Shown(BaseModel):
    """Base of the parts of a report that a page shows: what else it holds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Stored(Generic[M]):
    """One report of a run: its content, or why it cannot be shown. Neither where the run has none."""

    path: str
    sha256: str | None = None
    content: M | None = None
    fault: str | None = None


def files_of(session: Session, project_id: str, run_id: str) -> Files:
    """The run's files by path; 404 where the project has no such run."""
    return {file.path: file for file in artifacts_of_run(session, project_id, run_id)}


def read_report(
    store: LocalStore, files: Files, path: str, model: type[M], *, remember: bool = False
) -> Stored[M]:
    """The report at a run-folder path. `remember`: parse it once for its digest, for pages that are asked for every
    few seconds; the model must be small then."""
    file = files.get(path)
    if file is None:
        return Stored(path=path)
    read: Callable[[LocalStore, ArtifactOut, type[M]], M] = _remembered if remember else _content
    try:
        return Stored(path=path, sha256=file.sha256, content=read(store, file, model))
    except Unusable as error:
        return Stored(path=path, sha256=file.sha256, fault=str(error))


def _content(store: LocalStore, file: ArtifactOut, model: type[M]) -> M:
    if file.size_bytes > MAX_REPORT_BYTES:
        raise Unusable(
            f"{file.path} has {size(file.size_bytes)}, a page reads at most {size(MAX_REPORT_BYTES)} of a report; "
            f"download it from the artifacts of the run"
        )
    try:
        return model.model_validate(read_json(store, file))
    except (ValidationError, ContractError) as error:
        raise Unusable(
            f"{file.path} is not such a report ({_first(error)}); run its stage again with this version"
        ) from error


def _first(error: ValidationError | ContractError) -> str:
    if isinstance(error, ContractError):
        return error.message
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


_remembered = lru_cache(maxsize=MAX_REMEMBERED)(_content)
