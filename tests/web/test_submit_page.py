"""The form that submits a run, and the page that asks before one is paid for."""

import html
import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import transaction
from picochat_server.models import Run
from sqlalchemy import func, select
from support.visitors import log_in, new_key, text_of

PAID = "name: paid\nscale: h100-pilot\n"


def num_runs(app: FastAPI) -> int:
    with transaction(app.state.sessions) as session:
        return session.scalar(select(func.count()).select_from(Run)) or 0


def hidden(page: str) -> dict[str, str]:
    """The hidden fields of the forms on a page, as a browser would send them."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in found}


def test_a_spec_without_cost_goes_straight_to_its_run(app: FastAPI, logged_in: TestClient) -> None:
    form = logged_in.get("/runs/new")
    assert form.status_code == 200
    data = {**hidden(form.text), "spec": "name: first\r\nscale: smoke\r\n"}
    answer = logged_in.post("/runs/new", data=data)
    assert answer.status_code == 303
    assert "first" in logged_in.get(answer.headers["location"]).text
    assert logged_in.post("/runs/new", data=data).headers["location"] == answer.headers["location"]
    assert num_runs(app) == 1


def test_a_paid_run_is_asked_about_and_starts_from_the_button(app: FastAPI, logged_in: TestClient) -> None:
    token = hidden(logged_in.get("/runs/new").text)["token"]
    question = logged_in.post("/runs/new", data={"token": token, "spec": PAID})
    assert question.status_code == 409
    assert num_runs(app) == 0
    shown = text_of(question.text)
    for part in (
        "h100-pilot",
        "327,680,000",
        "Estimated hours",
        "picochat sanity preh100",
        "--dry-run-steps",
    ):
        assert part in shown
    fields = hidden(question.text)
    assert fields == {"token": token, "spec": PAID, "confirmed": "true"}
    answer = logged_in.post("/runs/new", data=fields)
    assert answer.status_code == 303
    page = text_of(logged_in.get(answer.headers["location"]).text)
    assert "Paid launch confirmed by laptop," in page
    assert num_runs(app) == 1


def test_going_back_and_changing_the_spec_makes_another_run(app: FastAPI, logged_in: TestClient) -> None:
    token = hidden(logged_in.get("/runs/new").text)["token"]
    places = set()
    for name in ("one", "two"):
        answer = logged_in.post("/runs/new", data={"token": token, "spec": f"name: {name}\nscale: smoke\n"})
        assert answer.status_code == 303
        places.add(answer.headers["location"])
    assert len(places) == 2


def test_what_the_project_does_not_have_comes_back_with_the_text_too(logged_in: TestClient) -> None:
    spec = "dataset: {sources: [{type: dataset, name: nothing}]}"
    answer = logged_in.post("/runs/new", data={"spec": spec})
    assert answer.status_code in (404, 422)
    assert "dataset_unknown" in answer.text and "type: dataset, name: nothing" in answer.text


def test_a_bad_spec_comes_back_with_its_text_and_the_reason(app: FastAPI, logged_in: TestClient) -> None:
    answer = logged_in.post("/runs/new", data={"spec": "bse: <b>\n"})
    assert answer.status_code == 422
    assert "unknown key" in answer.text and "bse: &lt;b&gt;" in answer.text
    assert num_runs(app) == 0


def test_a_form_of_another_site_is_refused(app: FastAPI, logged_in: TestClient) -> None:
    headers = {"Origin": "https://evil.example"}
    data = {"spec": PAID, "confirmed": "true"}
    assert logged_in.post("/runs/new", data=data, headers=headers).status_code == 403
    assert num_runs(app) == 0


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_key_that_may_only_read_gets_no_form(app: FastAPI, project_id: str, method: str) -> None:
    reader = log_in(app, new_key(app, project_id, "runs:read"))
    assert getattr(reader, method)("/runs/new").status_code == 403
    assert "New run" not in reader.get("/").text
