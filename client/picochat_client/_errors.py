"""The exceptions of the SDK; the tree is in the header of `picochat_client`."""

# ruff: noqa: N818 - the names say what happened, as HTTP's own do; `except NotFound` reads better than NotFoundError

from collections.abc import Mapping
from typing import Any


class PicochatError(Exception):
    """Base of everything that the client raises about a server; `message` is the text for a user."""

    slug = "client_error"
    """Stands where an ApiError has the server's code."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ServerUnreachable(PicochatError):
    """No answer within the patience that the caller gave."""

    slug = "server_unreachable"


class UnexpectedAnswer(PicochatError):
    """Something answered, but not as a picochat server of this version does."""

    slug = "unexpected_answer"


class TransferCorrupt(PicochatError):
    """The bytes that went up or came down do not have the sha256 that they should have."""

    slug = "digest_mismatch"


class ApiError(PicochatError):
    """The server refused; `code` is stable (picochat_contract.errors.Code), `detail` is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        request_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.param = param
        self.request_id = request_id
        self.extra = dict(extra or {})
        """Further members of the problem JSON, such as the offset that an upload should go on from."""


class InvalidRequest(ApiError):
    """400, 422 and every 4xx without a class of its own."""


class Unauthenticated(ApiError):
    """401: no key, or one that the server does not know."""


class Forbidden(ApiError):
    """403: the key lacks the scope, or the model is not released."""


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409."""


class TooLarge(ApiError):
    """413."""


class RateLimited(ApiError):
    """429, still so after the patience was used up."""


class ServerFault(ApiError):
    """5xx, still so after the patience was used up."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: RateLimited,
}


def error_class(status: int) -> type[ApiError]:
    """The exception class of an HTTP status."""
    return _BY_STATUS.get(status, ServerFault if status >= 500 else InvalidRequest)
