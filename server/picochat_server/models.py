"""The rows. Times are aware UTC; leases are seconds of the database's clock."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from picochat_server.db import Base

ID = String(32)
NAME = String(120)
DIGEST = String(64)
STATE = String(16)
RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only INTEGER primary keys


class Project(Base):
    __tablename__ = "project"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME, unique=True)
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key is shown once; only its sha256 is kept (it has 256 random bits, so no slow hash is needed)."""

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(NAME)
    secret_sha256: Mapped[str] = mapped_column(DIGEST, unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Run(Base):
    __tablename__ = "run"
    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key", name="uq_run_idempotency"),
        Index("ix_run_project_created", "project_id", "created_at", "id"),
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(NAME)
    spec: Mapped[dict[str, Any]]
    scale: Mapped[str] = mapped_column(NAME)
    gate_profile: Mapped[str] = mapped_column(NAME)
    state: Mapped[str] = mapped_column(STATE, index=True)
    desired_state: Mapped[str] = mapped_column(STATE)
    verdict: Mapped[str | None] = mapped_column(STATE)
    message: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[dict[str, Any]]
    event_seq: Mapped[int]
    """Number of the run's newest event; taken while the row is locked, so the sequence has no gap."""
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request_digest: Mapped[str | None] = mapped_column(DIGEST)
    """sha256 of the submitted spec: the same key with another body is refused."""
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Stage(Base):
    __tablename__ = "stage"
    __table_args__ = (
        UniqueConstraint("run_id", "name", name="uq_stage_run_name"),
        Index("ix_stage_fingerprint", "fingerprint", "state"),
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(STATE)
    position: Mapped[int]
    config: Mapped[dict[str, Any]]
    needs: Mapped[list[str]]
    state: Mapped[str] = mapped_column(STATE, index=True)
    desired_state: Mapped[str] = mapped_column(STATE)
    fingerprint: Mapped[str | None] = mapped_column(DIGEST)
    epoch: Mapped[int]
    """Counts claims; every write of an attempt carries it."""
    lease_token: Mapped[str | None] = mapped_column(DIGEST)
    lease_expires_at: Mapped[float | None] = mapped_column(Float(53))
    num_attempts: Mapped[int]
    max_attempts: Mapped[int]
    checkpoint_now: Mapped[bool]
    resume: Mapped[dict[str, Any] | None]
    """Last complete checkpoint: {epoch, step, files: [{path, sha256, size_bytes}]}."""
    step: Mapped[int | None]
    total_steps: Mapped[int | None]
    metrics: Mapped[dict[str, Any]]
    message: Mapped[str | None] = mapped_column(Text)
    cached_from: Mapped[str | None] = mapped_column(ID)
    queued_at: Mapped[float | None] = mapped_column(Float(53))
    """Database clock when it was last queued or hinted."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Attempt(Base):
    __tablename__ = "attempt"
    __table_args__ = (UniqueConstraint("stage_id", "epoch", name="uq_attempt_stage_epoch"),)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    stage_id: Mapped[str] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"))
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    epoch: Mapped[int]
    state: Mapped[str] = mapped_column(STATE)
    worker: Mapped[str | None] = mapped_column(NAME)
    last_client_seq: Mapped[int]
    """Highest event of this attempt that is stored: a repeated batch changes nothing."""
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    cause: Mapped[str | None] = mapped_column(STATE)
    message: Mapped[str | None] = mapped_column(Text)


class Event(Base):
    __tablename__ = "event"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime]
    type: Mapped[str] = mapped_column(STATE)
    stage: Mapped[str | None] = mapped_column(STATE)
    epoch: Mapped[int | None]
    data: Mapped[dict[str, Any]]


class Metric(Base):
    __tablename__ = "metric"
    __table_args__ = (Index("ix_metric_series", "run_id", "stage", "name", "step"),)
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    stage: Mapped[str] = mapped_column(STATE)
    epoch: Mapped[int]
    step: Mapped[int]
    name: Mapped[str] = mapped_column(String(64))
    value: Mapped[float] = mapped_column(Float(53))


class Artifact(Base):
    """Bytes in the store, by content."""

    __tablename__ = "artifact"
    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class ProjectArtifact(Base):
    """Which project may read an artifact: knowing a digest is not enough."""

    __tablename__ = "project_artifact"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("artifact.digest"), primary_key=True)


class StageArtifact(Base):
    """An output of a stage: a run-folder path and the bytes that lie there."""

    __tablename__ = "stage_artifact"
    stage_id: Mapped[str] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(512), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("artifact.digest"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(STATE)
    epoch: Mapped[int]
    created_at: Mapped[datetime]


class GateReportRow(Base):
    __tablename__ = "gate_report"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    policy: Mapped[str] = mapped_column(NAME)
    policy_digest: Mapped[str] = mapped_column(DIGEST)
    subject: Mapped[str] = mapped_column(DIGEST, index=True)
    verdict: Mapped[str] = mapped_column(STATE)
    report: Mapped[dict[str, Any]]
    signature: Mapped[str] = mapped_column(String(128))
    advice_verdict: Mapped[str | None] = mapped_column(STATE)
    decided_at: Mapped[datetime]


class Release(Base):
    __tablename__ = "release"
    __table_args__ = (UniqueConstraint("project_id", "name", "version", name="uq_release_version"),)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(NAME)
    version: Mapped[int]
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    gate_report_id: Mapped[str] = mapped_column(ForeignKey("gate_report.id"))
    checkpoint_sha256: Mapped[str] = mapped_column(DIGEST)
    created_at: Mapped[datetime]


class Dataset(Base):
    """A version of a named dataset: a list of stored files with their roles. Never changed, never removed."""

    __tablename__ = "dataset"
    __table_args__ = (UniqueConstraint("project_id", "name", "version", name="uq_dataset_version"),)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(NAME)
    version: Mapped[int]
    digest: Mapped[str] = mapped_column(DIGEST)
    """sha256 over the file list; pushing the newest version's content again makes no new one."""
    kind: Mapped[str] = mapped_column(STATE)
    description: Mapped[str] = mapped_column(Text)
    license: Mapped[str | None] = mapped_column(String(200))
    num_files: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[list[dict[str, Any]]]
    """[{role, path, digest, size_bytes, how it is read}], in order."""
    left_out: Mapped[list[dict[str, Any]]]
    created_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(ID)
    """Id of the key that was used."""


class PreflightReportRow(Base):
    """The server's own judgement of a run's preflight facts; it decided whether the run went on."""

    __tablename__ = "preflight_report"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    status: Mapped[str] = mapped_column(STATE)
    report: Mapped[dict[str, Any]]
    sha256: Mapped[str | None] = mapped_column(DIGEST)
    """Of the stored preflight.json that was judged."""
    advice_status: Mapped[str | None] = mapped_column(STATE)
    decided_at: Mapped[datetime]


class Worker(Base):
    __tablename__ = "worker"
    __table_args__ = (UniqueConstraint("project_id", "name", name="uq_worker_name"),)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(NAME)
    host: Mapped[str] = mapped_column(String(255))
    device: Mapped[str] = mapped_column(NAME)
    last_seen_at: Mapped[datetime]
    attempt_id: Mapped[str | None] = mapped_column(ID)


class Outbox(Base):
    """A hint to publish after commit; losing it does no harm, the reconciler writes another."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    stage_id: Mapped[str] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None] = mapped_column(index=True)


class Audit(Base):
    """Who did what: submit, cancel, release, keys. Only ever appended."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    time: Mapped[datetime]
    actor: Mapped[str] = mapped_column(ID)
    """Id of the key that was used."""
    action: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(64))
    data: Mapped[dict[str, Any]]
