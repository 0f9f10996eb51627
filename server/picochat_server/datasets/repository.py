"""SQL of the datasets."""

import re

from picochat_contract.data_configs import DATASET_NAME
from picochat_contract.ids import is_id
from sqlalchemy import select
from sqlalchemy.orm import Session

from picochat_server.models import Dataset


def by_id(session: Session, project_id: str, dataset_id: str) -> Dataset | None:
    if not is_id(dataset_id):
        return None
    return session.scalar(select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id))


def by_name(session: Session, project_id: str, name: str, version: int | None) -> Dataset | None:
    """That version of a dataset, the newest one where none is named."""
    if not re.fullmatch(DATASET_NAME, name):
        return None  # what has not a name's shape names nothing, and is not shown to a database
    query = select(Dataset).where(Dataset.project_id == project_id, Dataset.name == name)
    if version is not None:
        query = query.where(Dataset.version == version)
    return session.scalar(query.order_by(Dataset.version.desc()).limit(1))


def datasets_before(
    session: Session, project_id: str, name: str | None, after: str | None, limit: int
) -> list[Dataset]:
    """Versions newest first: ids are in order of time."""
    query = select(Dataset).where(Dataset.project_id == project_id).order_by(Dataset.id.desc()).limit(limit)
    if name is not None:
        query = query.where(Dataset.name == name)
    if after is not None:
        query = query.where(Dataset.id < after)
    return list(session.scalars(query))
