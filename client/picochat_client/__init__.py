"""Python SDK of a picochat server.

    with Client() as client:
        run = client.runs.submit(client.prepare_spec(Path("spec.yaml")))
        run = client.runs.wait(run.id, on_event=print)
        print(run.verdict, client.runs.gate(run.id).report.blocking)

PicochatError
  ApiError(status, code, detail, param, request_id)   the server refused
    InvalidRequest   400, 422 and other 4xx
    Unauthenticated  401
    Forbidden        403
    NotFound         404
    Conflict         409
    TooLarge         413
    RateLimited      429
    ServerFault      5xx
  ServerUnreachable  no answer within `timeout_seconds`
  UnexpectedAnswer   something else than a picochat server answered
  TransferCorrupt    bytes that came or went do not have their sha256

Specs and settings that are wrong raise picochat_contract's ContractError and SpecError before anything is sent.
Synchronous only. Importing it loads no torch, no server, no terminal library.
"""

from picochat_contract import __version__

from picochat_client._client import Client
from picochat_client._errors import (
    ApiError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    PicochatError,
    RateLimited,
    ServerFault,
    ServerUnreachable,
    TooLarge,
    TransferCorrupt,
    Unauthenticated,
    UnexpectedAnswer,
)
from picochat_client.outcome import outcome_of

__all__ = [
    "ApiError",
    "Client",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "NotFound",
    "PicochatError",
    "RateLimited",
    "ServerFault",
    "ServerUnreachable",
    "TooLarge",
    "TransferCorrupt",
    "Unauthenticated",
    "UnexpectedAnswer",
    "__version__",
    "outcome_of",
]
