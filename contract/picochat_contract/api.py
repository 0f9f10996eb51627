"""Shapes of the management API (`/api/v1`): what the server answers and what client, worker and CI send."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from picochat_contract.canonical import SHA256_HEX
from picochat_contract.events import CheckpointFiles, EventType, StageEvent
from picochat_contract.gate import GateReport, Verdict
from picochat_contract.layout import Kind
from picochat_contract.manifest import Manifest, StageJob
from picochat_contract.paid_launch import PaidLaunch
from picochat_contract.stages import StageName
from picochat_contract.states import AttemptState, Cause, DesiredState, RunState, StageState

API = "/api/v1"
LEASE_HEADER = "Picochat-Lease"  # lease token of an attempt, on artifact uploads by a worker
ATTEMPT_HEADER = "Picochat-Attempt"
VERDICT_HEADER = "Picochat-Verdict"  # on /v1 answers: verdict of the model that spoke
DIGEST_HEADER = "Picochat-Checkpoint"  # on /v1 answers: sha256 of its weights
UPLOAD_OFFSET_HEADER = "Upload-Offset"
UPLOAD_LENGTH_HEADER = "Upload-Length"

Scope = Literal["runs:read", "runs:write", "artifacts:read", "artifacts:write", "infer", "worker", "admin"]
SCOPES: tuple[Scope, ...] = (
    "runs:read",
    "runs:write",
    "artifacts:read",
    "artifacts:write",
    "infer",
    "worker",
    "admin",
)
T = TypeVar("T")
MAX_INT = 2**31 - 1  # of an integer column
Count = Annotated[int, Field(ge=0, le=MAX_INT)]
PLAIN = r"^[^\x00-\x1f\x7f]*$"  # no control characters; databases refuse some of them


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Page(Wire, Generic[T]):
    """Keyset list: pass `next` as `after` to go on."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    next: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem JSON (`application/problem+json`)."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str = "about:blank"
    title: str
    status: int
    code: str
    """Stable; see picochat_contract.errors.Code."""
    detail: str
    param: str | None = None
    request_id: str | None = None


# --- runs ---


class AttemptOut(Wire):
    id: str
    epoch: int
    state: AttemptState
    worker: str | None
    started_at: datetime
    finished_at: datetime | None
    cause: Cause | None
    message: str | None
    exit_code: int | None


class StageOut(Wire):
    id: str
    name: StageName
    state: StageState
    epoch: int
    fingerprint: str | None
    needs: list[StageName]
    started_at: datetime | None
    finished_at: datetime | None
    step: int | None
    """Last reported step."""
    total_steps: int | None
    metrics: dict[str, float]
    """Final numbers of the manifest, or the last reported ones while it runs."""
    message: str | None
    """Why it failed or was skipped."""
    cached_from: str | None
    """Stage id whose outputs were reused."""
    attempts: list[AttemptOut]


class RunSummary(Wire):
    id: str
    name: str
    project: str
    state: RunState
    desired_state: DesiredState
    verdict: Verdict | None
    scale: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    current_stage: StageName | None
    metrics: dict[str, float]
    """val_bpb, eval_pass_rate and the like, where they were measured."""
    message: str | None


class ConfirmedLaunch(Wire):
    """Who said that a run on paid GPUs shall start, and what they were told."""

    confirmed_by: str
    """Name of the key that was used."""
    key: str
    confirmed_at: datetime
    launch: PaidLaunch


class RunOut(RunSummary):
    spec: dict[str, Any]
    stages: list[StageOut]
    gate_profile: str
    last_seq: int
    """Sequence number of the newest event."""
    confirmed_launch: ConfirmedLaunch | None = None
    """None where no confirmation was needed."""


class EventOut(Wire):
    """An event with its place in the run's own gapless sequence."""

    seq: int
    time: datetime
    type: EventType
    stage: StageName | None
    epoch: int | None
    data: dict[str, Any]


class MetricSeries(Wire):
    stage: StageName
    name: str
    steps: list[int]
    values: list[float]


class MetricsOut(Wire):
    series: list[MetricSeries]


class ArtifactOut(Wire):
    path: str
    sha256: str
    size_bytes: int
    kind: Kind
    stage: StageName
    created_at: datetime


class GateOut(Wire):
    id: str
    run: str
    report: GateReport
    decided_at: datetime
    signature: str
    """HMAC-SHA256 by the server over the canonical JSON of `report`, hexadecimal."""
    advice_verdict: Verdict | None
    """What the trainer's own gate stage said; the server's verdict is the one that counts."""


class ReleaseIn(Wire):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    run: str


class ReleaseOut(Wire):
    id: str
    name: str
    version: int
    run: str
    checkpoint_sha256: str
    verdict: Verdict
    created_at: datetime


class KeyIn(Wire):
    name: str = Field(min_length=1, max_length=80, pattern=PLAIN)
    scopes: list[Scope] = Field(min_length=1)
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)


class KeyOut(Wire):
    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    secret: str | None = None
    """Only in the answer that created it."""


class MissingIn(Wire):
    digests: list[str] = Field(max_length=10_000)


class MissingOut(Wire):
    missing: list[str]


class WorkerOut(Wire):
    name: str
    host: str
    device: str
    last_seen_at: datetime
    attempt: str | None


# --- worker ---


class ClaimIn(Wire):
    """Ask for work. With `stage` (from a hint) only that stage is claimed."""

    worker: str = Field(min_length=1, max_length=120, pattern=PLAIN)
    host: str = Field(max_length=255, pattern=PLAIN)
    device: str = Field(max_length=120, pattern=PLAIN)
    stage: str | None = None


class ResumePoint(Wire):
    """The last complete checkpoint of an earlier attempt, to be laid into the run folder."""

    step: int
    files: list[ArtifactOut]


class Claim(Wire):
    attempt: str
    run: str
    run_name: str
    stage: str
    lease_token: str
    epoch: int
    lease_seconds: float
    grace_seconds: float
    """After the lease: the worker must have stopped by then, and only then may another take over."""
    job: StageJob
    inputs: list[ArtifactOut]
    """Files to lay into the run folder before the start."""
    sources: list[str]
    """Digests of uploaded dataset files that the job's `paths` name as `sources/<digest>`."""
    resume: ResumePoint | None


class Fence(Wire):
    """Every write of a worker carries these; no match means 409 `lease_lost`."""

    lease_token: str = Field(pattern=PLAIN)
    epoch: Count


class HeartbeatIn(Fence):
    step: Count | None = None


class HeartbeatOut(Wire):
    lease_seconds: float
    desired_state: DesiredState
    checkpoint_now: bool


class EventsIn(Fence):
    events: list[StageEvent] = Field(max_length=1000)


class EventsOut(Wire):
    last_seq: int
    """Highest sequence number of this attempt that is stored."""


class CheckpointIn(Fence):
    checkpoint: CheckpointFiles


class FinishIn(Fence):
    outcome: Literal["succeeded", "failed", "interrupted", "cancelled"]
    exit_code: int | None = Field(ge=-MAX_INT, le=MAX_INT)
    cause: Cause | None = None
    code: str | None = None
    """Error code from error.json."""
    message: str | None = None
    manifest: Manifest | None = None


class UploadOut(Wire):
    sha256: str = Field(pattern=SHA256_HEX.pattern)
    size_bytes: int
    complete: bool
    offset: int
    """Bytes stored so far."""
