"""Routes of the datasets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from picochat_contract.api import API, MAX_INT, Page
from picochat_contract.api_data import DatasetIn, DatasetOut, DatasetSummary
from picochat_contract.data_configs import DATASET_NAME
from picochat_contract.ids import ID_PATTERN

from picochat_server.auth.deps import SessionDep, require
from picochat_server.auth.principal import Principal
from picochat_server.datasets import service

WAS_THERE: dict[int | str, dict[str, Any]] = {
    200: {"model": DatasetOut, "description": "The newest version of this name holds the same already"}
}

router = APIRouter(prefix=API, tags=["datasets"])
Reader = Annotated[Principal, Depends(require("runs:read"))]
Name = Annotated[str, Query(pattern=DATASET_NAME)]


@router.post("/datasets", status_code=201, responses=WAS_THERE)
def register_dataset(
    request: Request,
    response: Response,
    session: SessionDep,
    principal: Annotated[Principal, Depends(require("runs:write"))],
    body: DatasetIn,
) -> DatasetOut:
    """Give uploaded files the next version of a name; run specs then say `type: dataset`."""
    out, is_new = service.register(session, request.app.state.store, principal, body)
    response.status_code = 201 if is_new else 200
    return out


@router.get("/datasets")
def list_datasets(
    session: SessionDep,
    principal: Reader,
    name: Name | None = None,
    after: Annotated[str | None, Query(pattern=ID_PATTERN.pattern)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Page[DatasetSummary]:
    """List versions of datasets, newest first."""
    return service.list_datasets(session, principal.project_id, name, after, limit)


@router.get("/datasets/{dataset}")
def get_dataset(session: SessionDep, principal: Reader, dataset: str) -> DatasetOut:
    """Show a version of a dataset with its files."""
    return service.dataset_by_id(session, principal.project_id, dataset)


@router.get("/datasets/by-name/{name}")
def get_dataset_by_name(
    session: SessionDep,
    principal: Reader,
    name: str,
    version: Annotated[int | None, Query(ge=1, le=MAX_INT)] = None,
) -> DatasetOut:
    """The same by its name: that version, or the newest one."""
    return service.dataset_by_name(session, principal.project_id, name, version)
