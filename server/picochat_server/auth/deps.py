"""Dependencies of endpoints: the session of a request and the principal with the scope it needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from picochat_contract.errors import Code
from sqlalchemy.orm import Session

from picochat_server.auth.principal import Principal
from picochat_server.auth.service import principal_of
from picochat_server.db import transaction
from picochat_server.problems import ApiProblem

READING_METHODS = frozenset({"GET", "HEAD"})
bearer = HTTPBearer(auto_error=False, description="An API key: `pk_...`")


def get_session(request: Request) -> Iterator[Session]:
    """One request, one transaction: committed before the answer leaves, rolled back on any error."""
    state = request.app.state
    sessions = state.read_sessions if request.method in READING_METHODS else state.sessions
    with transaction(sessions) as session:
        yield session


def get_worker_session(request: Request) -> Iterator[Session]:
    """The same from the workers' own small pool: slow pages never delay a heartbeat."""
    with transaction(request.app.state.worker_sessions) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session, scope="function")]
WorkerSessionDep = Annotated[Session, Depends(get_worker_session, scope="function")]


@dataclass(frozen=True)
class Require:
    """A dependency that gives the Principal if its key carries `scope`; 401 or 403 otherwise.

    It opens a session of its own and closes it at once, so that streams and uploads hold none.
    """

    scope: str

    def __call__(
        self,
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    ) -> Principal:
        state = request.app.state
        is_worker = self.scope == "worker"
        with transaction(state.worker_read_sessions if is_worker else state.read_sessions) as session:
            principal = principal_of(session, credentials.credentials) if credentials else None
        if principal is None:
            raise unauthenticated("no API key came" if credentials is None else "this API key is not valid")
        check_scope(principal, self.scope)
        return principal


def require(scope: str) -> Require:
    """`Annotated[Principal, Depends(require("runs:read"))]`."""
    return Require(scope)


def check_scope(principal: Principal, scope: str) -> None:
    """Raise 403 `forbidden_scope` unless the principal may use `scope`."""
    if not principal.may(scope):
        raise ApiProblem(
            403,
            Code.FORBIDDEN_SCOPE,
            f"this needs a key with scope {scope!r}; yours has {', '.join(sorted(principal.scopes))}",
            param=scope,
        )


def unauthenticated(what: str) -> ApiProblem:
    return ApiProblem(
        401,
        Code.UNAUTHENTICATED,
        f"{what}; send the header `Authorization: Bearer pk_...` with a key that is neither revoked nor expired",
        headers={"WWW-Authenticate": "Bearer"},
    )
