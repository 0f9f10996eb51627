"""The form that submits a run, and the question in between where the run is paid for by the hour."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from fastapi import Response
from fastapi.responses import RedirectResponse
from picochat_contract.errors import ContractError
from picochat_contract.paid_launch import PARAM, ConfirmationRequiredError, PaidLaunch
from picochat_contract.spec import read_mapping
from sqlalchemy.orm import Session

from picochat_server.artifacts.store import LocalStore
from picochat_server.auth.principal import Principal
from picochat_server.pages.context import Viewer
from picochat_server.pages.html import HEADERS, page
from picochat_server.pages.viewer import viewer_of
from picochat_server.problems import of_contract_error
from picochat_server.runs import service as runs
from picochat_server.settings import Settings

MAX_SPEC: Final = 200_000  # characters
MAX_TOKEN: Final = 64
FIRST_SPEC: Final = "name: first\nscale: demo\n"


@dataclass(frozen=True, kw_only=True)
class NewRunPage:
    viewer: Viewer
    spec: str
    token: str
    """Of this form: sent twice with the same spec, it makes one run."""
    error: str | None = None
    title: str = "New run"


@dataclass(frozen=True, kw_only=True)
class ConfirmRunPage:
    viewer: Viewer
    spec: str
    token: str
    launch: PaidLaunch
    title: str = "Confirm a paid launch"


def new_run_page(session: Session, principal: Principal) -> NewRunPage:
    return NewRunPage(viewer=viewer_of(session, principal), spec=FIRST_SPEC, token=secrets.token_hex(16))


def submitted(
    session: Session,
    store: LocalStore,
    settings: Settings,
    principal: Principal,
    *,
    spec: str,
    token: str,
    confirmed: bool,
) -> Response:
    """To the page of the new run; to the question first where it needs one; back to the form with what is wrong."""
    viewer = viewer_of(session, principal)
    token = token or secrets.token_hex(16)
    try:
        raw = read_mapping(spec)
        if confirmed:
            raw = {**raw, PARAM: True}
        run = runs.submit(session, store, settings, principal, raw, _idempotency_key(token, spec))
    except ConfirmationRequiredError as asked:
        question = ConfirmRunPage(viewer=viewer, spec=spec, token=token, launch=asked.launch)
        return page("confirm_run.html", question, of_contract_error(asked).status)
    except ContractError as error:
        form = NewRunPage(viewer=viewer, spec=spec, token=token, error=f"{error.message} ({error.code})")
        return page("new_run.html", form, of_contract_error(error).status)
    return RedirectResponse(f"/runs/{run.id}", 303, HEADERS)


def _idempotency_key(token: str, spec: str) -> str:
    """Another one where somebody goes back in the browser and changes the spec."""
    return hashlib.sha256(f"{token}\n{spec}".encode(errors="replace")).hexdigest()
