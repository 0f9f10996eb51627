"""The worker protocol over HTTP, typed. The only module that sends requests.

Every call may raise LeaseLost, Unreachable (worth another try) or Rejected (not worth one).
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from picochat_contract.api import (
    API,
    ATTEMPT_HEADER,
    LEASE_HEADER,
    UPLOAD_LENGTH_HEADER,
    UPLOAD_OFFSET_HEADER,
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
    Problem,
    UploadOut,
    Wire,
)
from picochat_contract.errors import Code
from picochat_contract.events import CheckpointFiles, StageEvent
from pydantic import BaseModel, ValidationError

from picochat_worker.errors import BadDownload, LeaseLost, Rejected, Unreachable

CHUNK_BYTES = 2**20
MISSING_BATCH = 10_000  # most digests that one question may hold
TRY_AGAIN = frozenset({408, 425, 429})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
logger = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)
Check = Callable[[], None]
"""Called between chunks; raises to break a transfer off."""


def go_on() -> None:
    """The check that never objects."""


class ControlPlane:
    """A connection pool to one server with one key. Safe to share between threads."""

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout_seconds,
            # A proxy of the environment is for the world outside, never for this machine.
            trust_env=urlsplit(url).hostname not in LOOPBACK,
        )

    def close(self) -> None:
        self._http.close()

    def claim(self, ask: ClaimIn) -> Claim | None:
        response = self.send("POST", f"{API}/worker/claims", body=ask)
        return None if response.status_code == httpx.codes.NO_CONTENT else _parse(Claim, response)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Wire | None = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        headers = dict(headers or {})
        if body is not None:
            content, headers["Content-Type"] = body.model_dump_json().encode(), "application/json"
        timeout = self._http.timeout if timeout_seconds is None else timeout_seconds
        try:
            response = self._http.request(method, path, content=content, headers=headers, timeout=timeout)
        except httpx.RequestError as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        _raise_for_problem(response)
        return response

    def stream(self, path: str, headers: dict[str, str]) -> AbstractContextManager[httpx.Response]:
        """GET a body piece by piece; the caller looks at the status and meets httpx's own errors."""
        return self._http.stream("GET", path, headers=headers)


class AttemptChannel:
    """The calls of one attempt, each of which carries its lease token and epoch."""

    def __init__(self, control_plane: ControlPlane, claim: Claim, *, part_bytes: int) -> None:
        self._send = control_plane.send
        self._stream = control_plane.stream
        self._path = f"{API}/worker/attempts/{claim.attempt}"
        self._fence = Fence(lease_token=claim.lease_token, epoch=claim.epoch).model_dump()
        self._headers = {LEASE_HEADER: claim.lease_token, ATTEMPT_HEADER: claim.attempt}
        self._part_bytes = part_bytes

    def heartbeat(self, step: int | None, *, timeout_seconds: float) -> HeartbeatOut:
        body = HeartbeatIn(**self._fence, step=step)
        response = self._send("POST", f"{self._path}/heartbeat", body=body, timeout_seconds=timeout_seconds)
        return _parse(HeartbeatOut, response)

    def events(self, events: list[StageEvent]) -> EventsOut:
        body = EventsIn(**self._fence, events=events)
        return _parse(EventsOut, self._send("POST", f"{self._path}/events", body=body))

    def checkpoint(self, checkpoint: CheckpointFiles) -> None:
        body = CheckpointIn(**self._fence, checkpoint=checkpoint)
        self._send("POST", f"{self._path}/checkpoint", body=body)

    def finish(self, **fields: Any) -> None:
        self._send("POST", f"{self._path}/finish", body=FinishIn(**self._fence, **fields))

    def missing(self, digests: list[str]) -> set[str]:
        """Those of `digests` that the store does not have."""
        missing: set[str] = set()
        for start in range(0, len(digests), MISSING_BATCH):
            body = MissingIn(digests=digests[start : start + MISSING_BATCH])
            response = self._send("POST", f"{API}/artifacts/missing", body=body, headers=self._headers)
            missing |= set(_parse(MissingOut, response).missing)
        return missing

    def upload(self, sha256: str, file: Path, check: Check = go_on) -> None:
        """Store `file` under its digest: small ones in one request, large ones in parts."""
        size = file.stat().st_size
        if size > self._part_bytes:
            self._upload_parts(sha256, file, size, check)
            return
        content = _chunks(file, 0, size, check)
        headers = {**self._headers, **_octets(size)}
        self._send("PUT", f"{API}/artifacts/{sha256}", content=content, headers=headers)

    def _upload_parts(self, sha256: str, file: Path, size: int, check: Check) -> None:
        """Send parts from offset 0; the server names a better offset where it has some already."""
        offset = 0
        while True:
            length = min(self._part_bytes, size - offset)
            place = {UPLOAD_OFFSET_HEADER: str(offset), UPLOAD_LENGTH_HEADER: str(size)}
            headers = {**self._headers, **_octets(length), **place}
            content = _chunks(file, offset, length, check)
            try:
                response = self._send("PATCH", f"{API}/artifacts/{sha256}", content=content, headers=headers)
            except Rejected as error:
                if error.code != Code.UPLOAD_OFFSET or error.offset is None:
                    raise
                if error.offset == offset:  # the request that this one repeats still holds the file
                    raise Unreachable(error.detail) from error
                offset = error.offset
                continue
            answer = _parse(UploadOut, response)
            if answer.complete:
                return
            if not offset < answer.offset < size:
                raise Rejected(
                    response.status_code,
                    Code.UPLOAD_OFFSET,
                    f"offset {answer.offset} after a part at {offset} of {size}",
                )
            offset = answer.offset

    def download(self, sha256: str, target: Path, check: Check = go_on) -> None:
        """Fetch an artifact into `target`; a broken transfer goes on where it stopped when called again.

        Raises BadDownload (and throws the bytes away) where they do not have the digest asked for.
        """
        part = target.with_name(target.name + ".part")
        have = part.stat().st_size if part.exists() else 0
        headers = dict(self._headers)
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'}
        try:
            with self._stream(f"{API}/artifacts/{sha256}", headers) as response:
                if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    part.unlink()
                    raise Unreachable(f"download of {sha256}: the part we had does not fit")
                if response.is_error:
                    response.read()
                _raise_for_problem(response)
                mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb"
                with part.open(mode) as file:
                    for chunk in response.iter_bytes(CHUNK_BYTES):
                        check()
                        file.write(chunk)
        except httpx.RequestError as error:
            raise Unreachable(f"download of {sha256}: {error or type(error).__name__}") from error
        got = file_sha256(part)
        if got != sha256:
            part.unlink()
            raise BadDownload(f"artifact {sha256} came with other bytes (sha256 {got}); it is not used")
        part.replace(target)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _chunks(file: Path, offset: int, length: int, check: Check) -> Iterator[bytes]:
    with file.open("rb") as source:
        source.seek(offset)
        while length > 0:
            check()
            chunk = source.read(min(CHUNK_BYTES, length))
            if not chunk:
                raise Unreachable(f"{file.name} became shorter while it was sent")
            length -= len(chunk)
            yield chunk


def _octets(size: int) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Length": str(size)}


def _parse(model: type[M], response: httpx.Response) -> M:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        # Most likely a gateway's page in front of a server that is away.
        raise Unreachable(f"{response.request.url}: the answer is not a {model.__name__}: {error}") from error


def _raise_for_problem(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(response.content)
        code, detail = problem.code, problem.detail
    except ValidationError:
        problem, code, detail = None, "", response.text[:200]
    status = response.status_code
    if status == httpx.codes.CONFLICT and code == Code.LEASE_LOST:
        raise LeaseLost(detail)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in TRY_AGAIN:
        raise Unreachable(f"{response.request.method} {response.request.url.path}: {status} {code} {detail}")
    raise Rejected(status, code, detail, offset=_expected_offset(response, problem))


def _expected_offset(response: httpx.Response, problem: Problem | None) -> int | None:
    """The offset that a 409 `upload_offset` names: as a header or as a member of the problem."""
    named = response.headers.get(UPLOAD_OFFSET_HEADER)
    if named is None and problem is not None:
        named = (problem.model_extra or {}).get("offset")
    return int(named) if named is not None and str(named).isdigit() else None
