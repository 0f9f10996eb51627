"""Browser sessions: a signed cookie that holds the id of a key and when it was given. Nothing else.

The key is looked up on every request, so revoking it ends the session. Forms are accepted only from our own
pages: SameSite=Strict on the cookie, and a check of the Origin header.
"""

import secrets
import time
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from picochat_contract.errors import Code
from sqlalchemy.orm import Session
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from picochat_server.auth.deps import check_scope
from picochat_server.auth.principal import Principal
from picochat_server.auth.service import principal_of, principal_of_key
from picochat_server.db import transaction
from picochat_server.problems import ApiProblem

COOKIE = "picochat_session"
MAX_AGE_SECONDS = 12 * 3600
KEY, ISSUED = "key", "issued"


class BrowserSession:
    """Starlette's SessionMiddleware; the cookie is `Secure` where the request came by https."""

    def __init__(self, app: ASGIApp, *, secret_key: str) -> None:
        # Without a secret nothing may be signed with the empty string: sessions then end with the server.
        secret_key = secret_key or secrets.token_hex(32)
        plain, secure = (
            SessionMiddleware(
                app,
                secret_key,
                session_cookie=COOKIE,
                max_age=MAX_AGE_SECONDS,
                same_site="strict",
                https_only=is_https,
            )
            for is_https in (False, True)
        )
        self._plain, self._secure = plain, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._secure if scope.get("scheme") == "https" else self._plain
        await app(scope, receive, send)


def log_in(request: Request, session: Session, secret: str) -> bool:
    """Begin a session for the key; False if the key is unknown, revoked or expired."""
    principal = principal_of(session, secret.strip())
    request.session.clear()
    if principal is None:
        return False
    request.session.update({KEY: principal.key_id, ISSUED: int(time.time())})
    return True


def log_out(request: Request) -> None:
    request.session.clear()


def visitor(request: Request) -> Principal | None:
    """Whoever is logged in; None without a session, or where its key has been revoked or has expired."""
    key_id, issued = request.session.get(KEY), request.session.get(ISSUED)
    if not isinstance(key_id, str) or not isinstance(issued, int):
        return None
    if issued + MAX_AGE_SECONDS < time.time():
        return None
    with transaction(request.app.state.read_sessions) as session:
        return principal_of_key(session, key_id)


def reader(request: Request) -> Principal:
    """The visitor of a page; a browser without a session is sent to the login page (see errors.py)."""
    principal = visitor(request)
    if principal is None:
        raise ApiProblem(
            401, Code.UNAUTHENTICATED, "you are not logged in, or your key does not work any more"
        )
    check_scope(principal, "runs:read")
    return principal


def same_origin(request: Request) -> None:
    """Refuse a form that another site's page sent."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if origin is None:
        if request.headers.get("sec-fetch-site") == "same-origin":
            return
    elif urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc == host:
        return
    raise ApiProblem(
        403,
        Code.CROSS_ORIGIN,
        f"this form must be sent from a page of this server ({host}); the browser named {origin!r} as its origin",
        param="Origin",
    )


def safe_next(path: str) -> str:
    """`path` if it leads to a page of this server, else the run list."""
    parts = urlsplit(path)
    is_ours = path.startswith("/") and not parts.scheme and not parts.netloc
    is_plain = "\\" not in path and path.isprintable() and not path.startswith("//")
    return path if is_ours and is_plain and not path.startswith(("/login", "/logout")) else "/"


ReaderDep = Annotated[Principal, Depends(reader)]
SameOriginDep = Depends(same_origin)
