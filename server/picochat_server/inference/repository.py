"""SQL of the models: which runs have a finished checkpoint, and the releases of a project."""

from picochat_contract import layout
from picochat_contract.states import STAGE_DONE
from sqlalchemy import select
from sqlalchemy.orm import Session

from picochat_server.models import GateReportRow, Release, Run, Stage, StageArtifact

SFT_WEIGHTS = f"{layout.SFT_CHECKPOINT}/{layout.WEIGHTS}"
BASE_WEIGHTS = f"{layout.BASE_BEST}/{layout.WEIGHTS}"


def releases(session: Session, project_id: str, limit: int) -> list[Release]:
    """Newest first, older versions included."""
    return list(
        session.scalars(
            select(Release).where(Release.project_id == project_id).order_by(Release.id.desc()).limit(limit)
        )
    )


def gate_report(session: Session, report_id: str) -> GateReportRow | None:
    return session.get(GateReportRow, report_id)


def weights_of_runs(session: Session, project_id: str, limit: int) -> list[tuple[Run, str, str]]:
    """(run, path of the weights, sha256) of every finished checkpoint, newest run first."""
    statement = (
        select(Run, StageArtifact.path, StageArtifact.digest)
        .join(Stage, Stage.run_id == Run.id)
        .join(StageArtifact, StageArtifact.stage_id == Stage.id)
        .where(
            Run.project_id == project_id,
            Stage.state.in_([state.value for state in STAGE_DONE]),
            StageArtifact.path.in_([SFT_WEIGHTS, BASE_WEIGHTS]),
        )
        .order_by(Run.created_at.desc(), Run.id.desc(), StageArtifact.path.desc())
        .limit(limit)
    )
    return [(run, path, digest) for run, path, digest in session.execute(statement)]
