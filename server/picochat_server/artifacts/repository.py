"""SQL of the artifacts: which bytes are recorded, who may read them, which stage wrote them where."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from picochat_contract.ids import is_id
from picochat_contract.manifest import OutputFile
from sqlalchemy import Table, delete, exists, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from picochat_server.models import Artifact, Attempt, ProjectArtifact, Run, Stage, StageArtifact

BATCH = 1_000  # digests in one IN list; SQLite allows 32,766 variables in a statement


def has_run(session: Session, project_id: str, run_id: str) -> bool:
    if not is_id(run_id):
        return False
    found = session.scalar(select(Run.id).where(Run.id == run_id, Run.project_id == project_id))
    return found is not None


def project_of_run(session: Session, run_id: str) -> str:
    return session.scalars(select(Run.project_id).where(Run.id == run_id)).one()


def lock_stage_of(session: Session, attempt_id: str, project_id: str) -> bool:
    """Lock the stage of an attempt until the transaction ends, so that no take-over slips in between."""
    if not is_id(attempt_id):
        return False
    statement = (
        select(Stage.id)
        .join(Attempt, Attempt.stage_id == Stage.id)
        .join(Run, Run.id == Stage.run_id)
        .where(Attempt.id == attempt_id, Run.project_id == project_id)
        .with_for_update(of=Stage)
    )
    return session.scalar(statement) is not None


def readable_sizes(session: Session, project_id: str, digests: Sequence[str]) -> dict[str, int]:
    """Size of each of `digests` that the project may read; the others are left out."""
    uploaded = exists().where(
        ProjectArtifact.digest == Artifact.digest, ProjectArtifact.project_id == project_id
    )
    written = exists().where(
        StageArtifact.digest == Artifact.digest,
        Stage.id == StageArtifact.stage_id,
        Run.id == Stage.run_id,
        Run.project_id == project_id,
    )
    sizes: dict[str, int] = {}
    for batch in _batches(digests):
        statement = select(Artifact.digest, Artifact.size_bytes).where(
            Artifact.digest.in_(batch), or_(uploaded, written)
        )
        sizes.update((digest, size) for digest, size in session.execute(statement))
    return sizes


def record(session: Session, project_id: str, digest: str, size_bytes: int) -> None:
    """Note that bytes are stored and that the project may read them; repeating it changes nothing."""
    _insert_once(session, Artifact, digest=digest, size_bytes=size_bytes, created_at=datetime.now(UTC))
    _insert_once(session, ProjectArtifact, project_id=project_id, digest=digest)


def outputs_of_run(
    session: Session, project_id: str, run_id: str, *, path: str | None = None
) -> list[tuple[StageArtifact, str]]:
    """The outputs of a run with their stage's name, by path; of two stages at one path, the later one last."""
    statement = (
        select(StageArtifact, Stage.name)
        .join(Stage, Stage.id == StageArtifact.stage_id)
        .join(Run, Run.id == Stage.run_id)
        .where(Run.id == run_id, Run.project_id == project_id)
        .order_by(StageArtifact.path, Stage.position)
    )
    if path is not None:
        statement = statement.where(StageArtifact.path == path)
    return [(output, stage) for output, stage in session.execute(statement)]


def replace_outputs(session: Session, stage_id: str, epoch: int, outputs: Sequence[OutputFile]) -> None:
    """Make `outputs` the files of the stage; what an earlier epoch left is forgotten."""
    session.execute(delete(StageArtifact).where(StageArtifact.stage_id == stage_id))
    now = datetime.now(UTC)
    session.add_all(
        StageArtifact(
            stage_id=stage_id,
            path=output.path,
            digest=output.sha256,
            size_bytes=output.size_bytes,
            kind=output.kind.value,
            epoch=epoch,
            created_at=now,
        )
        for output in outputs
    )
    session.flush()


def _insert_once(session: Session, model: type[Artifact] | type[ProjectArtifact], **values: Any) -> None:
    table = model.__table__
    assert isinstance(table, Table)
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    session.execute(insert(table).values(**values).on_conflict_do_nothing())


def _batches(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(digests), BATCH):
        yield digests[start : start + BATCH]
