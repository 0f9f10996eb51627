"""The server's verdict from stored evidence: approved fixtures, and everything that must block."""

import json
import time
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from picochat_contract import layout
from picochat_contract.api import ArtifactOut
from picochat_contract.canonical import sha256_hex
from picochat_contract.evidence import EVIDENCE_MODELS
from picochat_contract.gate import CheckStatus, GateReport
from picochat_contract.policies import POLICIES
from picochat_server.artifacts.store import LocalStore
from picochat_server.db import transaction
from picochat_server.gates import service as gates
from picochat_server.gates.evidence import Collected, collect
from picochat_server.gates.service import latest
from picochat_server.models import Event, GateReportRow, PreflightReportRow, Run
from sqlalchemy import select, text
from support.finished_run import (
    SFT_WEIGHTS,
    FinishedRun,
    approved_files,
    as_json,
    edited,
    eval_report,
    make_finished_run,
    score,
)

EVIDENCE = sorted(layout.EVIDENCE_PATHS.items())
DATA = [layout.CORPUS_MANIFEST, layout.CHAT, layout.EVAL]


@pytest.fixture
def decided(app: FastAPI, project_id: str) -> Callable[..., tuple[str, GateReport]]:
    """Decide a run with these files; return verdict and report."""

    def decide(files: dict[str, bytes], profile: str = "first_release") -> tuple[str, GateReport]:
        run = make_finished_run(app, project_id, files, profile)
        return run.decide(), report_of(run)

    return decide


def report_of(run: FinishedRun) -> GateReport:
    return GateReport.model_validate(row_of(run).report)


def row_of(run: FinishedRun) -> GateReportRow:
    with transaction(run.app.state.sessions) as session:
        row = latest(session, run.run_id)
    assert row is not None
    return row


def blocking(report: GateReport) -> set[str]:
    return {check.id for check in report.blocking}


def test_good_evidence_is_approved(decided: Callable[..., tuple[str, GateReport]]) -> None:
    verdict, report = decided(approved_files())
    assert (verdict, blocking(report)) == ("approved", set())
    assert {item.name for item in report.evidence} == set(layout.EVIDENCE_PATHS)


def test_verdict_is_recorded_on_the_run_with_the_trainers_advice(app: FastAPI, project_id: str) -> None:
    run = make_finished_run(app, project_id, approved_files())
    assert run.decide() == "approved"
    row = row_of(run)
    assert (row.policy, row.policy_digest) == ("first_release", POLICIES["first_release"].digest)
    assert (row.subject, row.advice_verdict) == (run.digest(SFT_WEIGHTS), "approved")
    with transaction(app.state.sessions) as session:
        assert session.scalars(select(Run.verdict).where(Run.id == run.run_id)).one() == "approved"


def with_judgement(app: FastAPI, project_id: str, **changes: object) -> set[str]:
    """What blocks a run whose row of the server's preflight was changed so."""
    run = make_finished_run(app, project_id, approved_files())
    with transaction(app.state.sessions) as session:
        row = session.get(PreflightReportRow, run.run_id)
        assert row is not None
        for name, value in changes.items():
            setattr(row, name, value)
    run.decide()
    return blocking(report_of(run))


def test_a_waiver_that_only_the_server_saw_blocks(app: FastAPI, project_id: str) -> None:
    waived = {"id": "honesty", "status": "block", "waived_by": "preflight.allow_leaky_eval"}
    report = {"status": "warn", "summary": "waived: honesty", "checks": [waived]}
    assert with_judgement(app, project_id, report=report) == {"preflight"}


def test_a_preflight_that_the_server_did_not_judge_blocks(app: FastAPI, project_id: str) -> None:
    assert with_judgement(app, project_id, sha256="f" * 64) == {"stored_preflight", "evidence_preflight"}


def test_gate_event_names_verdict_blocking_checks_and_subject(app: FastAPI, project_id: str) -> None:
    files = approved_files() | {layout.CHAT: b"other rows"}
    run = make_finished_run(app, project_id, files)
    assert run.decide() == "blocked"
    with transaction(app.state.sessions) as session:
        events = session.scalars(select(Event).where(Event.run_id == run.run_id, Event.type == "gate")).all()
    assert [event.data for event in events] == [
        {
            "verdict": "blocked",
            "blocking": ["evidence_honesty", "evidence_preflight", "evidence_audit"],
            "subject": run.digest(SFT_WEIGHTS),
        }
    ]
    assert events[0].stage == "gate"


@pytest.mark.parametrize(("name", "path"), EVIDENCE)
def test_missing_evidence_blocks(
    decided: Callable[..., tuple[str, GateReport]], name: str, path: str
) -> None:
    files = approved_files()
    del files[path]
    verdict, report = decided(files)
    assert verdict == "blocked"
    assert f"evidence_{name}" in blocking(report)


@pytest.mark.parametrize(("name", "path"), EVIDENCE)
def test_one_changed_byte_of_stored_evidence_blocks(
    app: FastAPI, project_id: str, name: str, path: str
) -> None:
    run = make_finished_run(app, project_id, approved_files())
    run.flip_byte(path)
    assert run.decide() == "blocked"
    check = next(check for check in report_of(run).blocking if check.id == f"stored_{name}")
    assert f"the stored bytes of {path} changed" in check.message
    assert run.digest(path)[:12] in check.message


@pytest.mark.parametrize("path", [SFT_WEIGHTS, *DATA])
def test_one_changed_byte_of_checkpoint_or_data_blocks(app: FastAPI, project_id: str, path: str) -> None:
    run = make_finished_run(app, project_id, approved_files())
    run.flip_byte(path)
    assert run.decide() == "blocked"
    (check,) = report_of(run).blocking
    assert f"the stored bytes of {path} changed" in check.message


@pytest.mark.parametrize("path", [SFT_WEIGHTS, *DATA])
def test_missing_checkpoint_or_data_blocks(decided: Callable[..., tuple[str, GateReport]], path: str) -> None:
    files = approved_files()
    del files[path]
    verdict, report = decided(files)
    assert verdict == "blocked"
    assert f"the run has no {path}" in [check.message for check in report.blocking]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("base", "val_tokens", 10**400),
        ("eval", "subject", "x\ud800"),
        ("eval", "overall", {"num_passed": 10**400}),
    ],
)
def test_evidence_that_no_report_can_quote_blocks(
    decided: Callable[..., tuple[str, GateReport]], name: str, key: str, value: object
) -> None:
    """An error here would leave the gate stage without an end."""
    files = approved_files()
    path = layout.EVIDENCE_PATHS[name]
    files[path] = json.dumps({**json.loads(files[path]), key: value}).encode()
    verdict, report = decided(files)
    assert verdict == "blocked"
    assert f"stored_{name}" in blocking(report)


def test_bytes_that_left_the_store_block(app: FastAPI, project_id: str) -> None:
    run = make_finished_run(app, project_id, approved_files())
    app.state.store.path(run.digest(layout.EVAL_REPORT)).unlink()
    assert run.decide() == "blocked"
    assert "stored_eval" in blocking(report_of(run))


@pytest.mark.parametrize("name", ["sft", "sft_fit", "sft_fit_heldout", "eval"])
def test_evidence_about_other_weights_blocks(
    decided: Callable[..., tuple[str, GateReport]], name: str
) -> None:
    files = approved_files()
    path = layout.EVIDENCE_PATHS[name]
    files[path] = edited(files[path], subject=sha256_hex(b"other weights"))
    verdict, report = decided(files)
    assert (verdict, blocking(report)) == ("blocked", {f"evidence_{name}"})


def test_other_weights_than_the_evidence_is_about_block(
    decided: Callable[..., tuple[str, GateReport]],
) -> None:
    verdict, report = decided(approved_files() | {SFT_WEIGHTS: b"better looking weights"})
    assert verdict == "blocked"
    assert report.subject == sha256_hex(b"better looking weights")


def test_base_weights_of_another_run_block(decided: Callable[..., tuple[str, GateReport]]) -> None:
    files = approved_files()
    files[layout.BASE_REPORT] = edited(files[layout.BASE_REPORT], subject=sha256_hex(b"other base"))
    verdict, report = decided(files)
    assert (verdict, blocking(report)) == ("blocked", {"lineage"})


def test_a_weak_model_is_blocked_by_the_check_that_measured_it(
    decided: Callable[..., tuple[str, GateReport]],
) -> None:
    files = approved_files()
    weak = eval_report(sha256_hex(files[SFT_WEIGHTS])).model_copy(update={"unsafe_refusal": score(20, 3)})
    verdict, report = decided(files | {layout.EVAL_REPORT: as_json(weak)})
    assert (verdict, blocking(report)) == ("blocked", {"refusal"})


def test_a_warning_alone_is_not_approved(decided: Callable[..., tuple[str, GateReport]]) -> None:
    files = approved_files()
    files[layout.HONESTY] = edited(files[layout.HONESTY], duplicate_eval_prompts=1)
    verdict, report = decided(files)
    assert verdict == "warn"
    assert [check.id for check in report.checks if check.status is CheckStatus.WARN] == [
        "duplicate_eval_prompts"
    ]


def test_skill_release_blocks_without_an_external_benchmark(
    decided: Callable[..., tuple[str, GateReport]],
) -> None:
    verdict, report = decided(approved_files(), "skill_release")
    assert verdict == "blocked"
    assert "external_eval_missing" in blocking(report)


@pytest.mark.parametrize("profile", ["none", "no_such_policy"])
def test_a_run_without_a_policy_is_blocked(
    decided: Callable[..., tuple[str, GateReport]], profile: str
) -> None:
    verdict, report = decided(approved_files(), profile)
    assert (verdict, blocking(report)) == ("blocked", {"policy"})


@pytest.mark.parametrize(
    "advice", [b"not json", b"[]", b"{}", b'{"verdict": "great"}', b'{"verdict": ["blocked"]}']
)
def test_unreadable_advice_does_not_count(app: FastAPI, project_id: str, advice: bytes) -> None:
    run = make_finished_run(app, project_id, approved_files() | {layout.GATE_REPORT: advice})
    assert run.decide() == "approved"
    assert row_of(run).advice_verdict is None


def test_the_trainers_advice_never_turns_a_verdict(app: FastAPI, project_id: str) -> None:
    files = approved_files() | {layout.GATE_REPORT: json.dumps({"verdict": "approved"}).encode()}
    del files[layout.EVAL_REPORT]
    run = make_finished_run(app, project_id, files)
    assert run.decide() == "blocked"
    assert row_of(run).advice_verdict == "approved"


def test_every_evidence_of_the_contract_is_read() -> None:
    assert set(layout.EVIDENCE_PATHS) == set(EVIDENCE_MODELS)


def test_slow_files_do_not_end_the_transaction(
    app: FastAPI, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres ends transactions that are idle for a minute; here it is a tenth of a second."""

    def slow_collect(store: LocalStore, artifacts: list[ArtifactOut]) -> Collected:
        time.sleep(0.3)  # a disk that takes three times as long as that
        return collect(store, artifacts)

    monkeypatch.setattr(gates, "collect", slow_collect)
    run = make_finished_run(app, project_id, approved_files())
    state = app.state
    with transaction(state.sessions) as session:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 100"))
        row = session.scalars(select(Run).where(Run.id == run.run_id)).one()
        assert gates.decide_run(session, state.store, state.settings, row) == "approved"
