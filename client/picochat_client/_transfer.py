"""Files up and down: streamed, hashed, resumed where they broke off, and never half there.

Up: parts of 8 MiB with `Upload-Offset`; after a break the server names the offset to go on from. Down: into a
hidden `.part` file beside the target, asked for by Range, checked by sha256, moved into place by rename.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import httpx
from picochat_contract.api import UPLOAD_LENGTH_HEADER, UPLOAD_OFFSET_HEADER, UploadOut
from picochat_contract.errors import Code

from picochat_client._errors import ApiError, Conflict, TransferCorrupt, UnexpectedAnswer
from picochat_client._http import Http, retrying

PART_BYTES = 8 * 1024 * 1024
Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(http: Http, path: Path, sha256: str, progress: Progress | None = None) -> None:
    """Send the file whose digest is `sha256`; raise TransferCorrupt if it changed meanwhile."""
    size = path.stat().st_size
    route = f"/artifacts/{sha256}"
    try:
        if size <= PART_BYTES:
            http.request("PUT", route, content=path.read_bytes())
        else:
            _upload_parts(http, path, route, size, progress)
    except ApiError as error:
        if error.code != Code.DIGEST_MISMATCH:
            raise
        raise TransferCorrupt(
            f"{path} changed while it was uploaded: {error.detail}; upload it again"
        ) from error
    if progress is not None:
        progress(size, size)


def _upload_parts(http: Http, path: Path, route: str, size: int, progress: Progress | None) -> None:
    offset, num_conflicts = 0, 0
    with path.open("rb") as file:
        while True:
            file.seek(offset)  # at the very end the part is empty and only asks for the check of the hash
            headers = {UPLOAD_OFFSET_HEADER: str(offset), UPLOAD_LENGTH_HEADER: str(size)}
            try:
                response = http.request(
                    "PATCH", route, content=file.read(PART_BYTES), headers=headers, repeatable=True
                )
            except Conflict as error:
                num_conflicts += 1
                expected = _expected_offset(error)
                if expected is None or num_conflicts > 100:
                    raise
                offset = expected
                continue
            answer = http.parse(response, UploadOut)
            if answer.complete:
                return
            if answer.offset <= offset:
                raise UnexpectedAnswer(f"{http.url} took a part of {path.name} but its offset stays {offset}")
            offset = answer.offset
            if progress is not None:
                progress(offset, size)


def _expected_offset(error: Conflict) -> int | None:
    """The offset that a 409 `upload_offset` names."""
    found = error.extra.get("offset")
    return found if error.code == Code.UPLOAD_OFFSET and isinstance(found, int) else None


def download(http: Http, route: str, target: Path, sha256: str, progress: Progress | None = None) -> None:
    """Fetch `route` into `target`, going on from what an earlier try left; raise TransferCorrupt."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{target.name}.{sha256[:16]}.part"
    resumed = part.exists()
    _fetch(http, route, part, sha256, progress)
    if resumed and file_sha256(part) != sha256:
        part.unlink()  # what lay there was not a piece of this file: once more from the start
        _fetch(http, route, part, sha256, progress)
    found = file_sha256(part)
    if found != sha256:
        part.unlink()
        raise TransferCorrupt(
            f"{http.url}/api/v1{route} should have sha256 {sha256[:16]}... but what came has {found[:16]}...; "
            "nothing was written"
        )
    part.replace(target)


def _fetch(http: Http, route: str, part: Path, sha256: str, progress: Progress | None) -> None:
    """Bring `part` to its full length."""
    patience = http.patience()
    while True:
        have = part.stat().st_size if part.exists() else 0
        # Compressed bytes could not be resumed.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'}
        try:
            with http.stream(route, headers) as response:
                _receive(response, part, have, patience.succeeded, progress)
            return
        except ApiError as error:
            if error.status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                return  # nothing comes after what is there; the digest decides
            retrying(patience, http, error)
        except httpx.TransportError as error:
            retrying(patience, http, error)


def _receive(
    response: httpx.Response,
    part: Path,
    have: int,
    received: Callable[[], None],
    progress: Progress | None,
) -> None:
    resumes = response.status_code == httpx.codes.PARTIAL_CONTENT
    if resumes and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise UnexpectedAnswer(
            f"asked for bytes from {have} on, got {response.headers.get('Content-Range', 'no Content-Range')!r}"
        )
    done = have if resumes else 0
    total = done + int(response.headers.get("Content-Length", 0))
    with part.open("ab" if resumes else "wb") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
            done += len(chunk)
            received()
            if progress is not None:
                progress(done, total)
        file.flush()
        os.fsync(file.fileno())
