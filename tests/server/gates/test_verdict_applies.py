"""A verdict applies only while nothing that it rests on has changed, and only if we signed it."""

import pytest
from fastapi import FastAPI
from picochat_contract import layout
from picochat_contract.policies import POLICIES
from picochat_server.artifacts import repository as artifact_rows
from picochat_server.db import transaction
from picochat_server.gates.service import latest, why_lapsed
from picochat_server.models import GateReportRow, StageArtifact
from sqlalchemy import update
from support.finished_run import SFT_WEIGHTS, FinishedRun, approved_files, make_finished_run, store_bytes


@pytest.fixture
def approved(app: FastAPI, project_id: str) -> FinishedRun:
    run = make_finished_run(app, project_id, approved_files())
    assert run.decide() == "approved"
    return run


def lapsed(run: FinishedRun, *, reads_bytes: bool = True) -> str | None:
    state = run.app.state
    with transaction(state.sessions) as session:
        row = latest(session, run.run_id)
        assert row is not None
        return why_lapsed(session, state.store, state.settings, row, reads_bytes=reads_bytes)


def edit_row(run: FinishedRun, **values: object) -> None:
    with transaction(run.app.state.sessions) as session:
        session.execute(update(GateReportRow).where(GateReportRow.run_id == run.run_id).values(**values))


def test_a_fresh_verdict_applies(approved: FinishedRun) -> None:
    assert lapsed(approved) is None
    assert lapsed(approved, reads_bytes=False) is None


@pytest.mark.parametrize(
    "path", [SFT_WEIGHTS, layout.CORPUS_MANIFEST, layout.CHAT, layout.EVAL, *layout.EVIDENCE_PATHS.values()]
)
def test_one_changed_byte_ends_a_verdict(approved: FinishedRun, path: str) -> None:
    approved.flip_byte(path)
    assert f"the stored bytes of {path} changed" in (lapsed(approved) or "")


def test_a_changed_policy_ends_a_verdict(approved: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    stricter = POLICIES["first_release"].model_copy(update={"min_sft_fit": 0.71})
    monkeypatch.setitem(POLICIES, "first_release", stricter)
    assert "gate policy 'first_release'" in (lapsed(approved, reads_bytes=False) or "")


def test_another_recorded_checkpoint_ends_a_verdict(approved: FinishedRun) -> None:
    state = approved.app.state
    other = store_bytes(state.store, b"other weights")
    with transaction(state.sessions) as session:
        artifact_rows.record(session, approved.project_id, other, 13)
        session.execute(
            update(StageArtifact).where(StageArtifact.path == SFT_WEIGHTS).values(digest=other, size_bytes=13)
        )
    assert "is not the one that was judged" in (lapsed(approved, reads_bytes=False) or "")


@pytest.mark.parametrize(
    "values",
    [{"verdict": "blocked"}, {"subject": "0" * 64}, {"policy": "research"}, {"signature": "0" * 64}],
    ids=lambda values: next(iter(values)),
)
def test_an_edited_column_ends_a_verdict(approved: FinishedRun, values: dict[str, str]) -> None:
    edit_row(approved, **values)
    assert "not signed by this server, or was edited" in (lapsed(approved, reads_bytes=False) or "")


def test_a_blocked_report_cannot_be_edited_into_an_approved_one(app: FastAPI, project_id: str) -> None:
    files = approved_files()
    del files[layout.EVAL_REPORT]
    run = make_finished_run(app, project_id, files)
    assert run.decide() == "blocked"
    with transaction(app.state.sessions) as session:
        row = latest(session, run.run_id)
        assert row is not None
        forged = {**row.report, "verdict": "approved", "checks": []}
    edit_row(run, verdict="approved", report=forged)
    assert "not signed by this server" in (lapsed(run) or "")


def test_a_verdict_of_another_server_key_does_not_apply(approved: FinishedRun) -> None:
    state = approved.app.state
    state.settings = state.settings.model_copy(update={"secret_key": "rotated"})
    assert "not signed by this server" in (lapsed(approved) or "")
