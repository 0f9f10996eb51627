"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from picochat_contract.errors import Code

INVALID_REQUEST = "invalid_request_error"


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, headers=self.headers)


def unauthenticated() -> ApiError:
    return ApiError(
        401,
        "Incorrect API key provided. Send the key that the server was started with as `Authorization: Bearer KEY`.",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def unknown_host(known: Iterable[str]) -> ApiError:
    return ApiError(
        421,
        f"Unknown Host header; address this server as {', '.join(sorted(known))}, or start it with a key.",
        code="bad_host",
    )


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"The request body is over {limit_bytes} bytes; send a shorter prompt.",
        code="request_too_large",
        headers={"Connection": "close"},  # a rest of the body may be unread
    )


def model_not_found(model: str, known: str) -> ApiError:
    return ApiError(
        404,
        f"The model `{model}` does not exist; this server has `{known}`.",
        param="model",
        code="model_not_found",
    )


def prompt_too_long(num_tokens: int, context: int, param: str) -> ApiError:
    return ApiError(
        400,
        f"This model's maximum context length is {context} tokens. However, your prompt has {num_tokens} tokens. "
        "Please reduce the length of the prompt.",
        param=param,
        code="context_length_exceeded",
    )


def no_such_route(status: int, detail: str) -> ApiError:
    return ApiError(
        status,
        f"{detail}: this server has GET /v1/models, POST /v1/completions and POST /v1/chat/completions.",
        code=Code.METHOD_NOT_ALLOWED if status == 405 else Code.NOT_FOUND,
    )


def overloaded(retry_after_seconds: int) -> ApiError:
    return ApiError(
        429,
        f"The server's queue is full; try again in {retry_after_seconds} s.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(retry_after_seconds)},
    )


def internal() -> ApiError:
    return ApiError(
        500, "The server failed to answer; its log says why.", type="server_error", code="internal"
    )


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's errors, with the path of the field as `param`."""
    first = errors[0]
    path = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return ApiError(400, f"The body is not JSON: {first['ctx']['error']}.", code="invalid_json")
    if first["type"] == "extra_forbidden":
        return ApiError(
            400,
            f"Unrecognized request argument supplied: {'.'.join(path)}",
            param=".".join(path),
            code="unknown_parameter",
        )
    param = first.get("ctx", {}).get("param") or ".".join(path) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code="invalid_value")
