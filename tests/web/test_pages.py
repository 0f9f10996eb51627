"""What the pages say, without JavaScript: numbers come from rows, texts are escaped, addresses page by key."""

import html
import re
from datetime import timedelta
from typing import get_args

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_contract.gate import CheckStatus, GateReport, Verdict
from picochat_contract.preflight import PreflightStatus
from picochat_contract.preflight_judge import RULES
from picochat_contract.stages import StageName
from picochat_contract.states import AttemptState, RunState, StageState
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.models import GateReportRow, Run, Stage
from picochat_server.pages import views
from picochat_server.pages.honesty import RISKS, Status
from picochat_server.pages.html import POLICY, STATIC, WEB, asset
from picochat_server.pages.marks import mark_of
from sqlalchemy import select, update
from support import seeded_runs as seed
from support.visitors import log_in, new_key, text_of

ATTACK = "<script>alert('x')</script>\"'&"


@pytest.fixture
def blocked(app: FastAPI, project_id: str) -> str:
    return seed.finished(app, project_id, "demo", seed.blocked_files()).run_id


@pytest.fixture
def running(app: FastAPI, project_id: str) -> str:
    return seed.running(app, project_id, "nightly")


def test_every_page_carries_the_content_policy(
    app: FastAPI, anonymous: TestClient, logged_in: TestClient, blocked: str, running: str
) -> None:
    pages = [
        *(logged_in.get(path) for path in ("/", f"/runs/{blocked}", f"/runs/{running}/live", "/nothing")),
        *(logged_in.get(f"/runs/{blocked}/{part}") for part in ("preflight", "honesty")),
        logged_in.get("/datasets"),
        *(anonymous.get(path) for path in ("/login", "/", "/nothing")),
        anonymous.post("/login", data={"key": "x"}),
        anonymous.post("/logout", headers={"Origin": "https://evil.example"}),
    ]
    for page in pages:
        assert page.headers["content-security-policy"] == POLICY, page.url
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "same-origin"
        assert page.headers["cache-control"] == "no-store"


def test_no_template_has_a_script_or_a_style_of_its_own() -> None:
    for template in WEB.glob("templates/**/*.html"):
        source = template.read_text()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?! src=)", source), template


def test_scripts_stay_small() -> None:
    for script in STATIC.glob("*.js"):
        assert len(script.read_text().splitlines()) <= 100, script


def test_an_empty_list_tells_how_to_submit(logged_in: TestClient) -> None:
    page = logged_in.get("/").text
    assert "No runs yet" in page
    assert "picochat-client submit" in page


def test_the_list_shows_each_run_with_what_was_measured(
    logged_in: TestClient, blocked: str, running: str
) -> None:
    rows = dict(re.findall(r'href="/runs/(run_\w+)"(.*?)</tr>', logged_in.get("/").text, re.DOTALL))
    assert list(rows) == [running, blocked], "newest first"
    done, live = text_of(rows[blocked]), text_of(rows[running])
    for shown in ("demo", "succeeded", "blocked", "4.210", "36.7 %", "2026-03-04 09:00", "2 min 12 s"):
        assert shown in done
    for shown in ("nightly", "running", "none yet", "base", "not measured"):
        assert shown in live


@pytest.mark.parametrize("state", RunState)
def test_the_list_is_filtered_by_state(
    logged_in: TestClient, blocked: str, running: str, state: RunState
) -> None:
    page = logged_in.get(f"/?state={state}").text
    shown = {run for run in (blocked, running) if run in page}
    assert shown == {RunState.SUCCEEDED: {blocked}, RunState.RUNNING: {running}}.get(state, set())
    assert f'<a href="/?state={state}" aria-current="page">' in page


def test_an_unknown_state_is_refused_on_a_page(logged_in: TestClient) -> None:
    answer = logged_in.get("/?state=lost")
    assert answer.status_code == 422
    assert "text/html" in answer.headers["content-type"]


def test_the_list_pages_by_key_and_keeps_the_filter(
    app: FastAPI, logged_in: TestClient, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "PAGE_SIZE", 2)
    ids = [
        seed.queued(app, project_id, f"run-{number}", seed.START + timedelta(minutes=number))
        for number in range(5)
    ]
    seen: list[str] = []
    path: str | None = "/?state=queued"
    while path is not None:
        page = logged_in.get(path).text
        seen += re.findall(r'id="open-(run_\w+)"', page)
        older = re.search(r'href="([^"]+)" rel="next"', page)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == ids[::-1]


def test_another_projects_runs_are_not_there(app: FastAPI, blocked: str) -> None:
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
    stranger = log_in(app, new_key(app, other, "admin"))
    assert blocked not in stranger.get("/").text
    for path in ("", "/live", f"/files/{layout.CORPUS}"):
        assert stranger.get(f"/runs/{blocked}{path}").status_code == 404
    assert stranger.post(f"/runs/{blocked}/cancel").status_code == 404


def report_of(app: FastAPI, run_id: str) -> GateReport:
    with transaction(app.state.sessions) as session:
        row = session.scalars(select(GateReportRow).where(GateReportRow.run_id == run_id)).one()
        return GateReport.model_validate(row.report)


def test_a_blocked_run_says_by_which_checks_and_what_would_fix_each(
    app: FastAPI, logged_in: TestClient, blocked: str
) -> None:
    report = report_of(app, blocked)
    page = html.unescape(text_of(logged_in.get(f"/runs/{blocked}").text))
    assert report.blocking and report.warnings
    assert f"Blocked by {len(report.blocking)} of {len(report.checks)} checks." in page
    for check in (*report.blocking, *report.warnings):
        assert page.count(check.message) >= 2, "in the banner and in the table"
        assert page.count(check.fix) >= 2
    assert "n = 60, 95 % 0.199 to 0.425" in page
    assert "signature checked" in page


def test_an_approved_run_says_so(app: FastAPI, logged_in: TestClient, project_id: str) -> None:
    run_id = seed.finished(app, project_id, "good", seed.model_files()).run_id
    page = text_of(logged_in.get(f"/runs/{run_id}").text)
    assert f"Approved. All {len(report_of(app, run_id).checks)} checks of first_release passed" in page
    assert f"picochat-client release NAME {run_id}" in page


def test_an_edited_gate_report_is_exposed(app: FastAPI, logged_in: TestClient, blocked: str) -> None:
    with transaction(app.state.sessions) as session:
        row = session.scalars(select(GateReportRow)).one()
        report = {**row.report, "verdict": "approved"}
        session.execute(update(GateReportRow).values(report=report, verdict="approved"))
    page = text_of(logged_in.get(f"/runs/{blocked}").text)
    assert "The verdict does not apply any more" in page
    assert "signature checked" not in page
    assert "can be released" not in page


def test_curves_log_samples_and_artifacts_need_no_script(logged_in: TestClient, blocked: str) -> None:
    page = logged_in.get(f"/runs/{blocked}").text
    for chart in ("base-loss", "base-bpb", "sft-loss"):
        assert re.search(rf'id="chart-{chart}".*?<path class="line c0" d="M[\d. L]+"', page, re.DOTALL)
    seen = text_of(page)
    assert "The assignment statement is used" in seen
    assert "What is Picochat?" in seen
    assert "step 300: train loss" in seen
    assert f'href="/runs/{blocked}/files/sft/checkpoint/model.safetensors"' in page
    assert "scale: demo" in seen


def test_a_live_run_shows_progress_and_every_attempt(logged_in: TestClient, running: str) -> None:
    page = logged_in.get(f"/runs/{running}").text
    assert '<progress max="300" value="140"' in page
    seen = text_of(page)
    assert "step 140 of 300, about 1 min 11 s left" in seen
    assert "2 attempts" in seen
    assert "the lease ended without a heartbeat" in seen
    assert "The gate decides when evaluation is done." in seen


def test_a_failed_run_names_the_stage_and_the_reason(
    app: FastAPI, logged_in: TestClient, project_id: str
) -> None:
    run_id = seed.failed(app, project_id, "broken")
    page = text_of(logged_in.get(f"/runs/{run_id}").text)
    assert "Stage dataset failed. corpus file &#39;notes.csv&#39; line 7" in page
    assert "there is no verdict" in page


def test_what_was_not_measured_is_never_a_number(
    logged_in: TestClient, app: FastAPI, project_id: str
) -> None:
    page = text_of(logged_in.get(f"/runs/{seed.queued(app, project_id, 'next')}").text)
    assert page.count("not measured") == 4
    assert "No loss or BPB has been measured yet." in page


def test_a_reused_stage_shows_the_curves_and_samples_of_the_run_that_did_the_work(
    app: FastAPI, logged_in: TestClient, project_id: str, blocked: str
) -> None:
    page = logged_in.get(f"/runs/{seed.reusing(app, project_id, 'again', blocked)}").text
    assert 'id="chart-base-loss"' in page
    assert f"measured in {blocked}, whose stage was reused" in text_of(page)
    assert "The assignment statement is used" in page


def test_the_log_is_the_newest_lines(
    app: FastAPI, logged_in: TestClient, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "LOG_LINES", 3)
    for number in range(5):
        seed.log_event(app, running, f"line {number}!")
    page = text_of(logged_in.get(f"/runs/{running}").text)
    assert [number for number in range(5) if f"line {number}!" in page] == [2, 3, 4]
    assert "The newest 3 of 11 lines." in page


def test_hostile_texts_are_escaped_everywhere(app: FastAPI, logged_in: TestClient, blocked: str) -> None:
    with transaction(app.state.sessions) as session:
        session.execute(update(Run).values(name=ATTACK, message=ATTACK, scale=ATTACK, spec={ATTACK: ATTACK}))
        session.execute(update(Stage).values(message=ATTACK, metrics={ATTACK: 1.0}))
    seed.log_event(app, blocked, ATTACK, level=ATTACK)
    for path in ("/", f"/runs/{blocked}", f"/runs/{blocked}/live", f"/{ATTACK}", f"/runs/{ATTACK}"):
        page = logged_in.get(path).text
        assert "<script>alert" not in page, path
    assert "&lt;script&gt;alert" in logged_in.get("/").text


def test_live_parts_are_sent_only_when_something_happened(
    app: FastAPI, logged_in: TestClient, running: str
) -> None:
    page = logged_in.get(f"/runs/{running}").text
    seq = re.search(r'data-seq="(\d+)"', page)
    assert seq
    assert logged_in.get(f"/runs/{running}/live?seq={seq[1]}").status_code == 204
    seed.log_event(app, running, "something happened")
    answer = logged_in.get(f"/runs/{running}/live?seq={seq[1]}")
    assert answer.status_code == 200
    assert "something happened" in answer.text
    assert "<html" not in answer.text


def test_an_artifact_is_downloaded_with_the_session(logged_in: TestClient, blocked: str) -> None:
    path = f"/runs/{blocked}/files/sft/checkpoint/model.safetensors"
    answer = logged_in.get(path)
    assert answer.content == seed.model_files()["sft/checkpoint/model.safetensors"]
    assert answer.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert "sandbox" in answer.headers["content-security-policy"]
    assert logged_in.get(path, headers={"Range": "bytes=1-3"}).content == b"\x01\x02\x03"


def test_a_download_needs_its_scope(app: FastAPI, project_id: str, blocked: str) -> None:
    reader = log_in(app, new_key(app, project_id, "runs:read"))
    assert f"/runs/{blocked}/files/" not in reader.get(f"/runs/{blocked}").text
    assert reader.get(f"/runs/{blocked}/files/corpus.txt").status_code == 403


@pytest.mark.parametrize("path", ["/nothing", "/runs/run_x", "/runs/run_x/live", "/static/nothing.css"])
def test_what_is_not_there_is_an_error_page(logged_in: TestClient, path: str) -> None:
    answer = logged_in.get(path)
    assert answer.status_code == 404
    assert "There is no such page" in answer.text
    assert "not_found" in answer.text


def test_a_fault_of_the_server_is_an_error_page_without_details(
    logged_in: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(views, "runs_page", fail)
    answer = logged_in.get("/")
    assert answer.status_code == 500
    assert "A fault of this server" in answer.text
    assert "secret detail" not in answer.text


def test_static_files_are_cached_by_content(anonymous: TestClient) -> None:
    answer = anonymous.get(asset("base.css"))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"].startswith("text/css")
    again = anonymous.get("/static/base.css", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert anonymous.get("/static/base.css?v=old").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/static/..%2f__init__.py", "/static/%2e%2e/__init__.py", "/static/../run.html"]
)
def test_static_files_lie_in_one_folder(anonymous: TestClient, path: str) -> None:
    assert anonymous.get(path).status_code in (303, 404)


def test_every_state_has_a_word_and_a_symbol() -> None:
    icons = (WEB / "templates/parts/icons.html").read_text()
    words = [one.value for kind in (RunState, StageState, AttemptState, Verdict, CheckStatus) for one in kind]
    for word in (*words, *PreflightStatus, *get_args(Status), *RISKS, "waived"):
        assert mark_of(word).word
        assert f'"{mark_of(word).icon}":' in icons


def test_a_run_that_preflight_stopped_says_why_and_what_would_fix_it(
    app: FastAPI, logged_in: TestClient, project_id: str
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    source = logged_in.get(f"/runs/{run}").text
    page = html.unescape(text_of(source))
    assert f"Preflight blocked this run: 1 of {len(RULES)} checks. No later stage was run." in page
    assert "honesty : 3 eval prompts among SFT rows" in page
    assert "Measured 3, the limit is > 0. Fix" not in page, "the word is drawn, not said twice"
    assert "Measured 3, the limit is > 0. remove the leaked rows" in page
    assert f'href="/runs/{run}/preflight#check-honesty"' in source
    assert "nothing to release" in page
    assert "blocked" in text_of(logged_in.get("/?state=blocked").text)
    assert logged_in.get(f"/runs/{run}/live").status_code == 200


def test_a_run_that_preflight_stopped_shows_the_leak_and_leads_to_all_findings(
    app: FastAPI, logged_in: TestClient, project_id: str
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    source = logged_in.get(f"/runs/{run}").text
    assert "eval:7 in sft:31 : what is the capital of freedonia" in text_of(source)
    assert f'<a href="/runs/{run}/honesty#findings">all 3 findings</a>' in source


def test_the_stage_track_shows_where_preflight_stopped_the_run(
    app: FastAPI, logged_in: TestClient, project_id: str
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    stages = re.findall(r'<li class="stage (\w+)">(.*?)</li>', logged_in.get(f"/runs/{run}").text, re.DOTALL)
    shown = [(*text_of(stage).split()[:2], tone) for tone, stage in stages]
    assert shown[:4] == [
        ("dataset", "succeeded", "good"),
        ("honesty", "succeeded", "good"),
        ("preflight", "blocked", "bad"),
        ("tokenizer", "skipped", "quiet"),
    ]
    assert {state for _, state, _ in shown[4:]} == {"skipped"}
    assert [name for name, _, _ in shown] == [stage.value for stage in StageName]


def test_the_address_above_a_run_leads_to_the_list(logged_in: TestClient) -> None:
    answer = logged_in.get("/runs", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
