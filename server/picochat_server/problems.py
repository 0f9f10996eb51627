"""Errors as answers: problem JSON (RFC 9457) by default, OpenAI's shape under /v1, HTML for a browser's page.

ApiProblem   raised by services and endpoints: status, stable code, what to do
"""

import html
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from picochat_contract.api import API, Problem
from picochat_contract.errors import Code, ContractError, TransitionError
from picochat_contract.paid_launch import ConfirmationRequiredError
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)
PROBLEM_TYPE = "application/problem+json"
_CODES_OF_STATUS = {
    400: Code.INVALID_REQUEST,
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN_SCOPE,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    413: Code.UPLOAD_TOO_LARGE,
}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class ApiProblem(Exception):  # noqa: N818 - the name of what it carries (RFC 9457)
    """An answer other than success; `detail` says what was expected, what came, what to do."""

    def __init__(
        self,
        status: int,
        code: Code,
        detail: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = _utf8(detail)
        self.param = _utf8(param) if param is not None else None
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})
        """Further members of the problem JSON."""


def not_found(what: str, name: str) -> ApiProblem:
    return ApiProblem(404, Code.NOT_FOUND, f"this project has no {what} {name!r}")


def busy(detail: str = "the database is busy; try again in a second") -> ApiProblem:
    return ApiProblem(503, Code.DATABASE_BUSY, detail, headers={"Retry-After": "1"})


def install(app: FastAPI) -> None:
    """Register the handlers that turn every error into an answer of the right shape."""
    app.add_exception_handler(ApiProblem, lambda request, error: answer(request, cast(ApiProblem, error)))
    app.add_exception_handler(ContractError, _contract_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(DataError, _unstorable)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(PoolTimeout, _database_error)
    app.add_exception_handler(Exception, _unexpected)


def answer(request: Request, problem: ApiProblem) -> Response:
    """The problem in the shape that this path's readers expect."""
    headers = {**problem.headers, "X-Request-ID": request_id(request)}
    path = request.url.path
    if path == "/v1" or path.startswith("/v1/"):
        return JSONResponse(_openai(problem), problem.status, headers)
    if not path.startswith(API) and "text/html" in request.headers.get("accept", ""):
        page = getattr(request.app.state, "error_page", _plain_page)
        response = cast(Response, page(request, problem.status, str(problem.code), problem.detail))
        response.headers.update(headers)
        return response
    return JSONResponse(
        problem_json(problem, request_id(request)), problem.status, headers, media_type=PROBLEM_TYPE
    )


def problem_json(problem: ApiProblem, request_id: str) -> dict[str, Any]:
    return Problem(
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        code=problem.code,
        detail=problem.detail,
        param=problem.param,
        request_id=request_id or None,
        **problem.extra,
    ).model_dump(exclude_none=True)


def request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def of_contract_error(error: ContractError) -> ApiProblem:
    """422, or 409 for a transition that the table does not allow and for a launch that nobody has confirmed."""
    status = 409 if isinstance(error, TransitionError | ConfirmationRequiredError) else 422
    extra = (
        {"launch": error.launch.model_dump(mode="json")}
        if isinstance(error, ConfirmationRequiredError)
        else {}
    )
    return ApiProblem(status, error.code, error.message, param=error.param, extra=extra)


def _contract_error(request: Request, error: Exception) -> Response:
    return answer(request, of_contract_error(cast(ContractError, error)))


def _validation_error(request: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    got = first.get("input")
    shown = f"; got {got!r}"[:200] if isinstance(got, str | int | float) else ""
    detail = f"{request.method} {request.url.path}: {where}: {first['msg']}{shown}"
    return answer(request, ApiProblem(422, Code.INVALID_REQUEST, detail, param=where))


def _http_exception(request: Request, error: Exception) -> Response:
    raised = cast(HTTPException, error)
    code = _CODES_OF_STATUS.get(
        raised.status_code, Code.INVALID_REQUEST if raised.status_code < 500 else Code.INTERNAL
    )
    detail = f"{request.method} {request.url.path}: {raised.detail}"
    return answer(request, ApiProblem(raised.status_code, code, detail, headers=raised.headers))


def _database_error(request: Request, error: Exception) -> Response:
    logger.warning("database error", extra={"request_id": request_id(request), "error": str(error)})
    return answer(request, busy())


def _unstorable(request: Request, error: Exception) -> Response:
    """Postgres refuses NUL in text and numbers beyond a column; the shapes of the API let few of them come here."""
    logger.warning("unstorable value", extra={"request_id": request_id(request), "error": str(error)})
    detail = (
        "a text or number in the request does not fit into the database: no NUL, no number beyond 32 bits"
    )
    return answer(request, ApiProblem(422, Code.INVALID_REQUEST, detail))


def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("unexpected error", exc_info=error, extra={"request_id": request_id(request)})
    detail = f"a fault of the server; its log has the details under request id {request_id(request)}"
    return answer(request, ApiProblem(500, Code.INTERNAL, detail))


def _openai(problem: ApiProblem) -> dict[str, Any]:
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": problem.detail,
            "type": _OPENAI_TYPES.get(problem.status, kind),
            "param": problem.param,
            "code": str(problem.code),
        }
    }


def _utf8(text: str) -> str:
    """JSON may carry lone surrogates, a message that quotes them could not be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain_page(request: Request, status: int, code: str, detail: str) -> Response:
    title = f"{status} {HTTPStatus(status).phrase}"
    text = f"<!doctype html><title>{title}</title><h1>{title}</h1><p>{html.escape(detail)}</p>"
    return HTMLResponse(f"{text}<p><code>{html.escape(code)}</code></p>", status)
