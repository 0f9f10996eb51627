"""Who may read and who may send: a person's key by its scope, a worker's by the lease of its attempt."""

from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials
from picochat_contract.api import ATTEMPT_HEADER, LEASE_HEADER
from picochat_contract.errors import Code

from picochat_server.artifacts.uploads import Lease, Sender
from picochat_server.auth.deps import bearer, unauthenticated
from picochat_server.auth.principal import Principal
from picochat_server.auth.service import principal_of
from picochat_server.db import transaction
from picochat_server.problems import ApiProblem

READ = "artifacts:read"
WRITE = "artifacts:write"
WORKER = "worker"


def caller(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Principal:
    """The principal, whatever its scopes; the session is closed again before the endpoint starts."""
    if credentials is None:
        raise unauthenticated("no API key came")
    with transaction(request.app.state.read_sessions) as session:
        principal = principal_of(session, credentials.credentials)
    if principal is None:
        raise unauthenticated("this API key is not valid")
    return principal


CallerDep = Annotated[Principal, Depends(caller)]


def reader(principal: CallerDep) -> Principal:
    _need_one_of(principal, READ, WORKER)
    return principal


def uploader(principal: CallerDep) -> Principal:
    """Somebody who may ask what is missing; whether bytes may be sent is up to `sender`."""
    _need_one_of(principal, WRITE, WORKER)
    return principal


def anyone_with_artifacts(principal: CallerDep) -> Principal:
    _need_one_of(principal, READ, WRITE, WORKER)
    return principal


def sender(
    principal: Annotated[Principal, Depends(uploader)],
    lease_token: Annotated[str | None, Header(alias=LEASE_HEADER)] = None,
    attempt_id: Annotated[str | None, Header(alias=ATTEMPT_HEADER)] = None,
) -> Sender:
    """With lease headers the upload is fenced whatever the key may do; a worker's key needs them."""
    lease = Lease(attempt_id=attempt_id, token=lease_token) if attempt_id and lease_token else None
    if lease is None and not principal.may(WRITE):
        raise ApiProblem(
            403,
            Code.FORBIDDEN_SCOPE,
            f"a key with scope {WORKER!r} uploads for a live attempt only: send {LEASE_HEADER} and "
            f"{ATTEMPT_HEADER}, or use a key with scope {WRITE!r}",
            param=LEASE_HEADER,
        )
    return Sender(project_id=principal.project_id, key_id=principal.key_id, lease=lease)


ReaderDep = Annotated[Principal, Depends(reader)]
UploaderDep = Annotated[Principal, Depends(uploader)]
AnyoneDep = Annotated[Principal, Depends(anyone_with_artifacts)]
SenderDep = Annotated[Sender, Depends(sender)]


def _need_one_of(principal: Principal, *scopes: str) -> None:
    if not any(principal.may(scope) for scope in scopes):
        raise ApiProblem(
            403,
            Code.FORBIDDEN_SCOPE,
            f"this needs a key with scope {' or '.join(map(repr, scopes))}; "
            f"yours has {', '.join(sorted(principal.scopes))}",
            param=scopes[0],
        )
