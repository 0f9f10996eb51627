"""Answers that carry a stored file: ranges, strong ETags, and headers that keep a browser from running it."""

from pathlib import PurePosixPath

from fastapi import Request
from picochat_contract.errors import Code
from starlette.responses import FileResponse, Response

from picochat_server.artifacts.store import LocalStore
from picochat_server.problems import ApiProblem

TEXT_SUFFIXES = frozenset({".csv", ".json", ".jsonl", ".log", ".md", ".txt", ".yaml", ".yml"})
TEXT_TYPE = "text/plain; charset=utf-8"
BINARY_TYPE = "application/octet-stream"


def file_answer(request: Request, store: LocalStore, digest: str, name: str) -> Response:
    """The bytes of `digest`, called `name` (a plain file name) where they are saved."""
    etag = f'"{digest}"'
    is_text = PurePosixPath(name).suffix in TEXT_SUFFIXES
    headers = {
        "etag": etag,
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        # A path may name other bytes after another attempt; a digest never does.
        "cache-control": "private, no-cache",
    }
    if _is_known(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    path = store.path(digest)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ApiProblem(
            404, Code.NOT_FOUND, f"the bytes of {name!r} ({digest}) are gone from the artifact store"
        ) from None
    return FileResponse(
        path,
        headers=headers,
        media_type=TEXT_TYPE if is_text else BINARY_TYPE,
        stat_result=found,
        filename=name,
        content_disposition_type="inline" if is_text else "attachment",
    )


def _is_known(if_none_match: list[str], etag: str) -> bool:
    """Weak comparison, as RFC 9110 asks of If-None-Match."""
    tags = [tag.strip().removeprefix("W/") for line in if_none_match for tag in line.split(",")]
    return "*" in tags or etag in tags
