"""A control plane in memory behind real HTTP: leases, fencing, digests, uploads in parts. No database.

It keeps what a test wants to know: every request, what was stored, and what was refused.
"""

import asyncio
import hashlib
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from picochat_contract.api import (
    API,
    ATTEMPT_HEADER,
    LEASE_HEADER,
    UPLOAD_LENGTH_HEADER,
    UPLOAD_OFFSET_HEADER,
    ArtifactOut,
    CheckpointIn,
    Claim,
    ClaimIn,
    EventsIn,
    EventsOut,
    Fence,
    FinishIn,
    HeartbeatIn,
    HeartbeatOut,
    MissingIn,
    MissingOut,
    ResumePoint,
    UploadOut,
)
from picochat_contract.errors import Code
from picochat_contract.events import CheckpointFiles, StageEvent
from picochat_contract.layout import Kind
from picochat_contract.manifest import StageJob
from picochat_contract.stages import StageName
from picochat_contract.states import DesiredState
from support.ports import free_port, wait_for

KEY = "pk_test_worker"


@dataclass
class Attempt:
    claim: Claim
    renewed_at: float
    """time.monotonic() of the last accepted heartbeat."""
    events: dict[int, StageEvent] = field(default_factory=dict)
    checkpoints: list[CheckpointFiles] = field(default_factory=list)
    steps: list[int | None] = field(default_factory=list)
    finish: FinishIn | None = None
    desired: DesiredState = DesiredState.RUNNING
    wants_checkpoint: bool = False
    lost: bool = False


@dataclass(frozen=True)
class Seen:
    """One request and its answer."""

    time: float
    method: str
    path: str
    attempt: str | None
    status: int


@dataclass
class _Queued:
    id: str
    job: StageJob
    inputs: list[ArtifactOut]
    sources: list[str]
    resume: ResumePoint | None
    epoch: int = 0
    free: bool = True


class Refusal(Exception):  # noqa: N818
    def __init__(self, status: int, code: Code, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.answer = JSONResponse(
            {"title": detail, "status": status, "code": code.value, "detail": detail, **extra}, status
        )


class FakeServer:
    """`start` and `stop` really open and close the port: between them the server is away."""

    def __init__(self, *, lease_seconds: float = 3.0, grace_seconds: float = 3.0) -> None:
        self.lease_seconds = lease_seconds
        self.grace_seconds = grace_seconds
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.stages: dict[str, _Queued] = {}
        self.attempts: dict[str, Attempt] = {}
        self.blobs: dict[str, bytes] = {}
        self.partials: dict[str, bytes] = {}
        self.corrupt: set[str] = set()
        """Digests whose downloads come with other bytes."""
        self.away_for_downloads = False
        self.refuse_uploads = False
        self.refuse_success = False
        self.cut_uploads = 0
        """So many next PATCH requests store half of their part and then fail."""
        self.broken: tuple[str, ...] = ()
        """Requests whose path ends so are answered 500; heartbeats may go on meanwhile."""
        self.revoked = False
        """The key is no longer accepted."""
        self.hold_uploads = threading.Event()
        self.hold_uploads.set()
        self.seen: list[Seen] = []
        self.asked: list[str | None] = []
        """The stage that each claim named."""
        self._numbers = itertools.count(1)
        self._uvicorn: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._app = self._routes()

    # --- what a test does ---

    def start(self) -> None:
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=self.port, log_level="error", ws="none", lifespan="off"
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run, daemon=True)
        self._thread.start()
        wait_for(self.port)

    def stop(self) -> None:
        if self._uvicorn and self._thread:
            self._uvicorn.should_exit = True
            self._uvicorn.force_exit = True
            self._thread.join(10)
            assert not self._thread.is_alive()

    def add_stage(
        self,
        config: dict[str, Any],
        *,
        stage: StageName = StageName.BASE,
        inputs: dict[str, bytes] | None = None,
        sources: tuple[bytes, ...] = (),
        resume: dict[str, bytes] | None = None,
    ) -> str:
        """Queue a stage; return its id."""
        identity = f"stg_{next(self._numbers)}"
        self.stages[identity] = _Queued(
            id=identity,
            job=StageJob(stage=stage, config=config),
            inputs=self._artifacts(inputs or {}),
            sources=[self.store(data) for data in sources],
            resume=ResumePoint(step=5, files=self._artifacts(resume)) if resume else None,
        )
        return identity

    def store(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def attempt(self) -> Attempt:
        """The newest one."""
        return list(self.attempts.values())[-1]

    def lose(self, attempt: Attempt) -> float:
        """Fence the attempt off, as after a take-over; return when."""
        attempt.lost = True
        return time.monotonic()

    def accepted(self, attempt: Attempt, since: float) -> list[Seen]:
        """Writes of this attempt that were accepted after `since`."""
        return [
            seen
            for seen in self.seen
            if seen.attempt == attempt.claim.attempt and seen.time > since and seen.status < 400
        ]

    # --- the worker protocol ---

    def _routes(self) -> FastAPI:
        app = FastAPI()
        app.exception_handler(Refusal)(lambda _request, refusal: refusal.answer)
        app.middleware("http")(self._note)
        worker = f"{API}/worker"
        app.post(f"{worker}/claims", response_model=None)(self._claim)
        app.post(f"{worker}/attempts/{{identity}}/heartbeat")(self._heartbeat)
        app.post(f"{worker}/attempts/{{identity}}/events")(self._events)
        app.post(f"{worker}/attempts/{{identity}}/checkpoint", status_code=204)(self._checkpoint)
        app.post(f"{worker}/attempts/{{identity}}/finish", status_code=204)(self._finish)
        app.post(f"{API}/artifacts/missing")(self._missing)
        app.get(f"{API}/artifacts/{{digest}}", response_model=None)(self._download)
        app.put(f"{API}/artifacts/{{digest}}", response_model=None)(self._put)
        app.patch(f"{API}/artifacts/{{digest}}", response_model=None)(self._patch)
        return app

    async def _note(self, request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        if self.revoked or request.headers.get("authorization") != f"Bearer {KEY}":
            return Refusal(401, Code.UNAUTHENTICATED, "no such key").answer
        if self.broken and request.url.path.endswith(self.broken):
            return Response("a gateway's page", 500)
        began = time.monotonic()  # what is under way while a lease is lost may have been accepted before
        response = await call(request)
        parts = request.url.path.split("/")
        attempt = parts[5] if "attempts" in parts else request.headers.get(ATTEMPT_HEADER)
        seen = Seen(began, request.method, request.url.path, attempt, response.status_code)
        self.seen.append(seen)
        return response

    def _claim(self, ask: ClaimIn) -> Claim | Response:
        self.asked.append(ask.stage)
        wanted = [s for s in self.stages.values() if s.free and ask.stage in (None, s.id)]
        if not wanted:
            return Response(status_code=204)
        stage = wanted[0]
        stage.free, stage.epoch = False, stage.epoch + 1
        number = next(self._numbers)
        claim = Claim(
            attempt=f"att_{number}_{self.port}",
            run="run_1",
            run_name="fake",
            stage=stage.id,
            lease_token=f"token{number}",
            epoch=stage.epoch,
            lease_seconds=self.lease_seconds,
            grace_seconds=self.grace_seconds,
            job=stage.job,
            inputs=stage.inputs,
            sources=stage.sources,
            resume=stage.resume,
        )
        self.attempts[claim.attempt] = Attempt(claim=claim, renewed_at=time.monotonic())
        return claim

    def _heartbeat(self, identity: str, body: HeartbeatIn) -> HeartbeatOut:
        attempt = self._fenced(identity, body)
        attempt.renewed_at = time.monotonic()
        attempt.steps.append(body.step)
        wanted, attempt.wants_checkpoint = attempt.wants_checkpoint, False
        return HeartbeatOut(
            lease_seconds=self.lease_seconds, desired_state=attempt.desired, checkpoint_now=wanted
        )

    def _events(self, identity: str, body: EventsIn) -> EventsOut:
        attempt = self._fenced(identity, body)
        for event in body.events:
            if event.data.get("poison"):
                raise Refusal(422, Code.INVALID_REQUEST, "an event that no server takes")
        for event in body.events:
            attempt.events.setdefault(event.seq, event)
        return EventsOut(last_seq=max(attempt.events))

    def _checkpoint(self, identity: str, body: CheckpointIn) -> None:
        attempt = self._fenced(identity, body)
        absent = [file.path for file in body.checkpoint.files if file.sha256 not in self.blobs]
        if absent:
            raise Refusal(422, Code.NOT_FOUND, f"not stored: {absent}")
        attempt.checkpoints.append(body.checkpoint)

    def _finish(self, identity: str, body: FinishIn) -> None:
        attempt = self._fenced(identity, body)
        outputs = body.manifest.outputs if body.manifest else ()
        absent = [output.path for output in outputs if output.sha256 not in self.blobs]
        if absent:
            raise Refusal(422, Code.NOT_FOUND, f"not stored: {absent}")
        if self.refuse_success and body.outcome == "succeeded":
            raise Refusal(422, Code.DIGEST_MISMATCH, "an output has another size")
        attempt.finish = body

    def _fenced(self, identity: str, fence: Fence) -> Attempt:
        attempt = self.attempts[identity]
        same = (fence.lease_token, fence.epoch) == (attempt.claim.lease_token, attempt.claim.epoch)
        if attempt.lost or attempt.finish or not same:
            raise Refusal(409, Code.LEASE_LOST, "another attempt has the stage")
        return attempt

    # --- artifacts ---

    def _missing(self, body: MissingIn) -> MissingOut:
        return MissingOut(missing=[digest for digest in body.digests if digest not in self.blobs])

    def _download(self, digest: str, request: Request) -> Response:
        data = self.blobs.get(digest)
        if self.away_for_downloads:
            raise Refusal(503, Code.DATABASE_BUSY, "not now")
        if data is None:
            raise Refusal(404, Code.NOT_FOUND, f"no artifact {digest}")
        if digest in self.corrupt:
            data = b"X" + data[1:]
        start = request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        return Response(data[int(start) :], 206 if int(start) else 200)

    async def _put(self, digest: str, request: Request) -> Response:
        await self._may_upload(request)
        return self._keep(digest, await request.body())

    async def _patch(self, digest: str, request: Request) -> Response:
        await self._may_upload(request)
        have = self.partials.get(digest, b"")
        if int(request.headers[UPLOAD_OFFSET_HEADER]) != len(have):
            raise Refusal(409, Code.UPLOAD_OFFSET, "another offset", offset=len(have))
        part = await request.body()
        if self.cut_uploads:
            self.cut_uploads -= 1
            self.partials[digest] = have + part[: len(part) // 2]
            raise Refusal(503, Code.DATABASE_BUSY, "cut in the middle")
        data = self.partials[digest] = have + part
        if len(data) == int(request.headers[UPLOAD_LENGTH_HEADER]):
            return self._keep(digest, self.partials.pop(digest))
        out = UploadOut(sha256=digest, size_bytes=len(data), complete=False, offset=len(data))
        return JSONResponse(out.model_dump())

    async def _may_upload(self, request: Request) -> None:
        await asyncio.to_thread(self.hold_uploads.wait, 10)
        attempt = self.attempts[request.headers[ATTEMPT_HEADER]]
        if attempt.lost or request.headers[LEASE_HEADER] != attempt.claim.lease_token:
            raise Refusal(409, Code.LEASE_LOST, "another attempt has the stage")
        if self.refuse_uploads:
            raise Refusal(413, Code.UPLOAD_TOO_LARGE, "the store is small")

    def _keep(self, digest: str, data: bytes) -> Response:
        if hashlib.sha256(data).hexdigest() != digest:
            raise Refusal(422, Code.DIGEST_MISMATCH, "other bytes")
        self.blobs[digest] = data
        out = UploadOut(sha256=digest, size_bytes=len(data), complete=True, offset=len(data))
        return JSONResponse(out.model_dump(), 201)

    def _artifacts(self, files: dict[str, bytes]) -> list[ArtifactOut]:
        return [
            ArtifactOut.model_validate(
                {
                    "path": path,
                    "sha256": self.store(data),
                    "size_bytes": len(data),
                    "kind": Kind.DATA,
                    "stage": StageName.DATASET,
                    "created_at": "2026-01-01T00:00:00Z",
                }
            )
            for path, data in files.items()
        ]
