"""Uploads: bytes from a request into the store, in bounded memory and with no database session open.

A session is opened twice for a moment, in a thread: before the first byte (is the lease live?) and when the
checked file is put in place (is it still?). The stage row is locked for the second, so that after a take-over
nothing of the old epoch is stored.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from anyio import CancelScope, to_thread
from picochat_contract.api import UploadOut
from picochat_contract.errors import Code
from sqlalchemy.orm import Session, sessionmaker
from starlette.requests import ClientDisconnect

from picochat_server.artifacts import repository
from picochat_server.artifacts.service import readable
from picochat_server.artifacts.store import LocalStore, Upload
from picochat_server.db import transaction
from picochat_server.leases.service import fence
from picochat_server.problems import ApiProblem

BUFFER_BYTES = 1 << 20  # one hop to a thread per MiB, not per network packet


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The attempt that a worker uploads for, and the token that proves it is still its."""

    attempt_id: str
    token: str


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who uploads: a key of a project, and with a worker the lease that it holds."""

    project_id: str
    key_id: str
    lease: Lease | None

    @property
    def partial_owner(self) -> str:
        return self.owner(self.project_id, self.key_id, self.lease.attempt_id if self.lease else None)

    @staticmethod
    def owner(project_id: str, key_id: str, attempt_id: str | None) -> str:
        """Cut uploads belong to one attempt or key: nobody goes on with, or learns of, another's."""
        return f"{project_id}/{key_id}/{attempt_id or ''}"


class Uploads:
    """Receives files for one server: store, sessions and the size limit."""

    def __init__(self, store: LocalStore, sessions: sessionmaker[Session], max_bytes: int) -> None:
        self._store = store
        self._sessions = sessions
        self._max_bytes = max_bytes

    async def put(
        self, sender: Sender, digest: str, stream: AsyncIterator[bytes], announced: int | None
    ) -> tuple[UploadOut, bool]:
        """Store a whole file; the second value says whether it is new to the project.

        When the sender goes away in the middle, what came stays as a partial that `patch` can go on with.
        """
        self._check_size(announced or 0)
        await to_thread.run_sync(self._admit, sender, digest)
        upload = await to_thread.run_sync(self._store.begin)
        try:
            await self._receive(upload, stream, self._max_bytes)
            return await to_thread.run_sync(self._commit, sender, digest, upload)
        except ClientDisconnect:
            await to_thread.run_sync(upload.keep, sender.partial_owner, digest)
            raise
        finally:
            await _close(upload)

    async def patch(
        self,
        sender: Sender,
        digest: str,
        stream: AsyncIterator[bytes],
        *,
        offset: int,
        length: int,
        announced: int | None,
    ) -> UploadOut:
        """Append a part; the one that reaches `length` makes the file visible if its hash is right."""
        self._check_size(length)
        if offset + (announced or 0) > length:
            raise _too_many_bytes(length)
        known = await to_thread.run_sync(self._admit, sender, digest)
        if known is not None:  # the answer to the last part got lost: nothing is left to send
            return UploadOut(sha256=digest, size_bytes=known, complete=True, offset=known)
        upload = await to_thread.run_sync(self._store.resume, sender.partial_owner, digest)
        try:
            upload.check_offset(offset)
            await self._receive_part(upload, stream, length)
            if upload.size < length:
                return UploadOut(sha256=digest, size_bytes=length, complete=False, offset=upload.size)
            out, _ = await to_thread.run_sync(self._commit, sender, digest, upload)
            return out
        finally:
            await _close(upload)

    async def _receive(self, upload: Upload, stream: AsyncIterator[bytes], limit: int) -> None:
        """Write the stream; stop where it passes `limit` bytes in all, whatever it had announced."""
        buffer = bytearray()
        try:
            async for chunk in stream:
                if upload.size + len(buffer) + len(chunk) > limit:
                    raise self._too_large()
                buffer += chunk
                if len(buffer) >= BUFFER_BYTES:
                    await to_thread.run_sync(upload.write, bytes(buffer))
                    buffer.clear()
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(upload.write, bytes(buffer))

    async def _receive_part(self, upload: Upload, stream: AsyncIterator[bytes], length: int) -> None:
        start = upload.size
        try:
            await self._receive(upload, stream, length)
        except ApiProblem:
            await to_thread.run_sync(upload.rewind, start)
            raise _too_many_bytes(length) from None

    def _admit(self, sender: Sender, digest: str) -> int | None:
        """Check the lease; return the size if the project has these bytes already."""
        with transaction(self._sessions) as session:
            _fence(session, sender)
            size = repository.readable_sizes(session, sender.project_id, [digest]).get(digest)
        return size if size is not None and self._store.has(digest) else None

    def _commit(self, sender: Sender, digest: str, upload: Upload) -> tuple[UploadOut, bool]:
        upload.seal(digest)  # slow, so before the transaction
        with transaction(self._sessions) as session:
            _fence(session, sender)
            is_new = not readable(session, sender.project_id, digest)
            upload.publish(digest)
            repository.record(session, sender.project_id, digest, upload.size)
        out = UploadOut(sha256=digest, size_bytes=upload.size, complete=True, offset=upload.size)
        return out, is_new

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiProblem:
        return ApiProblem(
            413,
            Code.UPLOAD_TOO_LARGE,
            f"a file may have {self._max_bytes} bytes; split it, or raise PICOCHAT_MAX_UPLOAD_BYTES on the server",
        )


def _fence(session: Session, sender: Sender) -> None:
    """Raise 409 `lease_lost` unless the sender's attempt, if it has one, still holds its stage."""
    if sender.lease is None:
        return
    # A token is hexadecimal; comparing any other text in constant time is an error.
    is_plain = sender.lease.token.isascii()
    if not is_plain or not repository.lock_stage_of(session, sender.lease.attempt_id, sender.project_id):
        raise ApiProblem(409, Code.LEASE_LOST, "this project has no such attempt; stop it and claim again")
    fence(session, sender.lease.attempt_id, sender.lease.token)


async def _close(upload: Upload) -> None:
    with CancelScope(shield=True):  # also when the request was cancelled: no file and no lock stays behind
        await to_thread.run_sync(upload.close)


def _too_many_bytes(length: int) -> ApiProblem:
    return ApiProblem(
        422,
        Code.INVALID_REQUEST,
        f"the part goes past Upload-Length {length}; nothing of it was kept",
        param="Upload-Length",
    )
