"""Error pages in the layout of the others. `problems.answer` calls this where a browser asked for HTML."""

from http import HTTPStatus
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from picochat_server.pages.context import ErrorPage
from picochat_server.pages.html import HEADERS, page
from picochat_server.problems import request_id

TITLES = {404: "There is no such page", 403: "You may not do this", 500: "A fault of this server"}


def error_page(request: Request, status: int, code: str, detail: str) -> Response:
    """The page of an error; without a valid session the way leads over the login page."""
    if status == HTTPStatus.UNAUTHORIZED:
        return RedirectResponse(login_address(request), 303, HEADERS)
    title = TITLES.get(status) or HTTPStatus(status).phrase
    context = ErrorPage(status=status, title=title, detail=detail, code=code, request_id=request_id(request))
    return page("error.html", context, status)


def login_address(request: Request) -> str:
    """The login page, which comes back to the page that was asked for (a form is not sent again)."""
    if request.method != "GET" or request.url.path == "/":
        return "/login"
    query = f"?{request.url.query}" if request.url.query else ""
    return "/login?" + urlencode({"next": request.url.path + query})
