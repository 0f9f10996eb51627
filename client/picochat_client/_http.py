"""The only module of the client that issues HTTP: base address, bearer key, retries, errors.

Requests that may be repeated safely are: GET, HEAD, PUT, DELETE, those with an Idempotency-Key, and those that the
caller marks so. Any request may be repeated when it never left (no connection) or was refused by 429.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from picochat_contract import __version__
from picochat_contract.api import API, Page, Problem
from picochat_contract.errors import Code
from pydantic import BaseModel, ValidationError

from picochat_client._errors import ApiError, ServerUnreachable, UnexpectedAnswer, error_class
from picochat_client.retry import Clock, Notice, Patience, SystemClock

M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, str | int]

READ_TIMEOUT_SECONDS = 60.0
TIMEOUTS = httpx.Timeout(connect=5.0, read=READ_TIMEOUT_SECONDS, write=60.0, pool=5.0)
SAFE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
PASSING_STATUSES = frozenset({429, 502, 503, 504})
IDEMPOTENCY_HEADER = "Idempotency-Key"


class Http:
    """A connection to one server. Not thread-safe where `notice` is not."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        timeout_seconds: float,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        notice: Notice | None = None,
    ) -> None:
        self.url = url
        self.clock: Clock = clock or SystemClock()
        self._timeout_seconds = timeout_seconds
        self._notice = notice
        headers = {"User-Agent": f"picochat-client/{__version__}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        # A proxy named in the environment is for other hosts, never for this machine itself.
        self._is_local = urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
        self._client = httpx.Client(
            base_url=url, headers=headers, timeout=TIMEOUTS, transport=transport, trust_env=not self._is_local
        )

    def close(self) -> None:
        self._client.close()

    def patience(self) -> Patience:
        return Patience(self.clock, self._timeout_seconds, self._notice)

    def get(self, path: str, model: type[M], params: Params | None = None) -> M:
        return self.parse(self.request("GET", path, params=params), model)

    def pages(self, path: str, page: type[Page[M]], params: Params | None = None) -> Iterator[M]:
        """Iterate over a keyset list to its end."""
        query = dict(params or {})
        while True:
            part = self.get(path, page, query)
            yield from part.data
            if not part.has_more or part.next is None:
                return
            query["after"] = part.next

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """Send until there is an answer or the patience is used up; raise ApiError on 4xx and 5xx."""
        repeatable = repeatable or method in SAFE_METHODS or IDEMPOTENCY_HEADER in (headers or {})
        patience = self.patience()
        while True:
            try:
                response = self._client.request(
                    method, API + path, params=params, json=json, content=content, headers=headers
                )
            except httpx.TransportError as error:
                may_repeat = repeatable or isinstance(error, NEVER_SENT)
                if not (may_repeat and patience.pause(self.no_answer(error))):
                    raise ServerUnreachable(self.no_answer(error)) from error
                continue
            if response.is_success:
                return response
            failure = self.failure(response)
            if not (_passing(failure, repeatable) and patience.pause(failure.detail, _retry_after(response))):
                raise failure

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str], *, read_timeout_seconds: float = READ_TIMEOUT_SECONDS
    ) -> Iterator[httpx.Response]:
        """One try at a streamed GET; httpx.TransportError and ApiError are the caller's to repeat."""
        timeout = httpx.Timeout(connect=5.0, read=read_timeout_seconds, write=60.0, pool=5.0)
        with self._client.stream("GET", API + path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise self.failure(response)
            yield response

    def parse(self, response: httpx.Response, model: type[M]) -> M:
        """Validate an answer; keys that a newer server adds are let through."""
        try:
            return model.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise UnexpectedAnswer(
                f"{response.request.url} did not answer as a picochat server {__version__} does ({where}: "
                f"{first['msg']}); check --url and the versions on both sides"
            ) from error

    def failure(self, response: httpx.Response) -> ApiError:
        """The exception for an answer that is not a success."""
        status = response.status_code
        if response.is_redirect:
            target = response.headers.get("Location", "another address")
            return error_class(status)(
                status, "redirected", f"{self.url} redirects to {target}; give that server as --url"
            )
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            text = " ".join(response.text.split())[:200]
            detail = f"{self.url} answered {status} {response.reason_phrase}{': ' if text else ''}{text}"
            return error_class(status)(status, f"http_{status}", detail)
        return error_class(status)(
            status,
            problem.code,
            problem.detail,
            param=problem.param,
            request_id=problem.request_id,
            extra=problem.model_extra,
        )

    def no_answer(self, error: httpx.TransportError) -> str:
        reason = str(error) or type(error).__name__
        hint = "; start it with `picochat up`, or give --url" if self._is_local else ""
        return f"no answer from {self.url} ({reason}){hint}"


def retrying(patience: Patience, http: Http, error: httpx.TransportError | ApiError) -> None:
    """Sleep after a failure of a streamed GET; raise where it is final or the patience is used up."""
    if isinstance(error, ApiError):
        if error.status not in PASSING_STATUSES or not patience.pause(error.detail):
            raise error
    elif not patience.pause(http.no_answer(error)):
        raise ServerUnreachable(http.no_answer(error)) from error


def _passing(failure: ApiError, repeatable: bool) -> bool:
    """True if the same request may well succeed in a moment."""
    if failure.status == 429 or failure.code == Code.IDEMPOTENCY_IN_FLIGHT:
        return True
    return repeatable and failure.status in PASSING_STATUSES


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, given as a number or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
