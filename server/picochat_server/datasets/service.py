"""Register datasets under versioned names, and read them."""

from datetime import UTC, datetime

from picochat_contract.api import Page
from picochat_contract.api_data import DatasetFileOut, DatasetIn, DatasetOut, DatasetSummary
from picochat_contract.errors import Code
from picochat_contract.ids import new_id
from sqlalchemy.orm import Session

from picochat_server.artifacts import service as artifacts
from picochat_server.artifacts.repository import readable_sizes
from picochat_server.artifacts.store import LocalStore
from picochat_server.auth import audit
from picochat_server.auth.principal import Principal
from picochat_server.auth.repository import lock_project
from picochat_server.datasets import repository
from picochat_server.models import Dataset
from picochat_server.problems import ApiProblem, not_found

MAX_NAMED = 5  # files in a refusal


def register(
    session: Session, store: LocalStore, principal: Principal, body: DatasetIn
) -> tuple[DatasetOut, bool]:
    """The next version of `body.name`; the second value is False if the newest one holds the same already."""
    lock_project(session, principal.project_id)
    files = _stored_files(session, store, principal.project_id, body)
    newest = repository.by_name(session, principal.project_id, body.name, None)
    if newest is not None and newest.digest == body.digest:
        return dataset_out(newest), False
    row = Dataset(
        id=new_id("dataset"),
        project_id=principal.project_id,
        name=body.name,
        version=newest.version + 1 if newest else 1,
        digest=body.digest,
        kind=body.kind,
        description=body.description,
        license=body.license,
        num_files=len(files),
        size_bytes=sum(file.size_bytes for file in files),
        files=[file.model_dump(mode="json") for file in files],
        left_out=[source.model_dump(mode="json") for source in body.left_out],
        created_at=datetime.now(UTC),
        created_by=principal.key_id,
    )
    session.add(row)
    session.flush()
    audit.record(
        session,
        principal,
        "dataset.create",
        row.id,
        name=row.name,
        version=row.version,
        digest=row.digest,
    )
    return dataset_out(row), True


def list_datasets(
    session: Session, project_id: str, name: str | None, after: str | None, limit: int
) -> Page[DatasetSummary]:
    """Versions newest first; pass `next` as `after` to go on."""
    rows = repository.datasets_before(session, project_id, name, after, limit + 1)
    shown = rows[:limit]
    has_more = len(rows) > limit
    return Page(
        data=[DatasetSummary.model_validate(_summary(row)) for row in shown],
        has_more=has_more,
        next=shown[-1].id if has_more else None,
    )


def dataset_by_id(session: Session, project_id: str, dataset_id: str) -> DatasetOut:
    row = repository.by_id(session, project_id, dataset_id)
    if row is None:
        raise not_found("dataset", dataset_id[:80])
    return dataset_out(row)


def dataset_by_name(session: Session, project_id: str, name: str, version: int | None) -> DatasetOut:
    row = repository.by_name(session, project_id, name, version)
    if row is None:
        raise not_found("dataset", name[:80] if version is None else f"{name[:80]} version {version}")
    return dataset_out(row)


def dataset_out(row: Dataset) -> DatasetOut:
    return DatasetOut.model_validate({**_summary(row), "files": row.files, "left_out": row.left_out})


def _summary(row: Dataset) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "digest": row.digest,
        "kind": row.kind,
        "description": row.description,
        "license": row.license,
        "num_files": row.num_files,
        "size_bytes": row.size_bytes,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }


def _stored_files(
    session: Session, store: LocalStore, project_id: str, body: DatasetIn
) -> list[DatasetFileOut]:
    """The files with their sizes; 422 `source_not_uploaded` where the project lacks the bytes of one."""
    digests = [file.digest for file in body.files]
    absent = set(artifacts.missing(session, store, project_id, digests))
    if absent:
        named = [f"{file.path} ({file.digest})" for file in body.files if file.digest in absent]
        more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
        raise ApiProblem(
            422,
            Code.SOURCE_NOT_UPLOADED,
            f"no bytes were uploaded to this project for {', '.join(named[:MAX_NAMED])}{more}; PUT each to "
            "/api/v1/artifacts/{sha256} first, or let `picochat-client data push` do both",
            param="files",
        )
    sizes = readable_sizes(session, project_id, digests)
    return [
        DatasetFileOut.model_validate({**file.model_dump(), "size_bytes": sizes[file.digest]})
        for file in body.files
    ]
