"""Judge a run's preflight facts again, from what lies in the store; and show that and the honesty reports.

What the preflight stage itself said is advice. Facts that are missing, unreadable, or about other files than the
run's own block: no stage that needs a GPU waits on anything but this.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from picochat_contract import layout
from picochat_contract.api import ArtifactOut
from picochat_contract.api_data import HonestyOut, PreflightOut
from picochat_contract.configs import PreflightConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import (
    PreflightCheck,
    PreflightRecord,
    PreflightReport,
    PreflightStatus,
)
from picochat_contract.preflight_facts import PreflightFacts
from picochat_contract.preflight_judge import blocks_anywhere, judge
from picochat_contract.spec import validated
from pydantic import ValidationError
from sqlalchemy.orm import Session

from picochat_server.artifacts.json_files import Unusable, read_json
from picochat_server.artifacts.service import artifacts_of_run
from picochat_server.artifacts.store import LocalStore
from picochat_server.models import PreflightReportRow, Run, Stage
from picochat_server.preflight import repository
from picochat_server.problems import ApiProblem, not_found
from picochat_server.runs import repository as runs

AGAIN = "submit the run again: stages that did not change are reused, and preflight measures anew"
Files = Mapping[str, ArtifactOut]


def judge_run(session: Session, store: LocalStore, run: Run, stage: Stage) -> PreflightReport:
    """Judge and store. Never raises over bad facts: they block."""
    files = {file.path: file for file in artifacts_of_run(session, run.project_id, run.id)}
    config = validated(PreflightConfig, stage.config)
    report, advice = _judge(store, config, files)
    recorded = files.get(layout.PREFLIGHT)
    session.add(
        PreflightReportRow(
            run_id=run.id,
            status=report.status.value,
            report=report.model_dump(mode="json"),
            sha256=recorded.sha256 if recorded else None,
            advice_status=advice.value if advice else None,
            decided_at=datetime.now(UTC),
        )
    )
    return report


def is_reusable(session: Session, twin: Stage) -> bool:
    """Whether what a finished preflight stage measured may stand for an equal one: not where nobody judged it, and not
    where it blocked over its machine, which no fingerprint covers."""
    row = repository.of_run(session, twin.run_id)
    return row is not None and blocks_anywhere(PreflightReport.model_validate(row.report))


def preflight_out(session: Session, project_id: str, run_id: str) -> PreflightOut:
    """The report as it was decided; 404 `preflight_not_ready` before."""
    row = repository.of_run(session, _found(session, project_id, run_id).id)
    if row is None:
        raise ApiProblem(
            404,
            Code.PREFLIGHT_NOT_READY,
            f"run {run_id} has no preflight report yet: its preflight stage has not finished, or the run has none",
        )
    return PreflightOut(
        run=row.run_id,
        report=PreflightReport.model_validate(row.report),
        decided_at=row.decided_at,
        sha256=row.sha256,
        advice_status=PreflightStatus(row.advice_status) if row.advice_status else None,
    )


def honesty_out(session: Session, store: LocalStore, project_id: str, run_id: str) -> HonestyOut:
    """The stored reports, their bytes checked; 404 `honesty_not_ready` before, 409 where they changed."""
    run = _found(session, project_id, run_id)
    files = {file.path: file for file in artifacts_of_run(session, project_id, run.id)}
    honesty, audit = files.get(layout.HONESTY), files.get(layout.AUDIT)
    if honesty is None:
        raise ApiProblem(
            404,
            Code.HONESTY_NOT_READY,
            f"run {run_id} has no honesty report yet: its honesty stage has not finished, or the run has none",
        )
    return HonestyOut(
        run=run.id,
        sha256=honesty.sha256,
        report=_object(store, honesty),
        audit_sha256=audit.sha256 if audit else None,
        audit=_object(store, audit) if audit else None,
    )


def _judge(
    store: LocalStore, config: PreflightConfig, files: Files
) -> tuple[PreflightReport, PreflightStatus | None]:
    recorded = files.get(layout.PREFLIGHT)
    if recorded is None:
        return _unjudged(f"the run has no {layout.PREFLIGHT}"), None
    try:
        record = PreflightRecord.model_validate(read_json(store, recorded))
        report = judge(config, record.facts)
    except Unusable as error:
        return _unjudged(str(error)), None
    except (ValidationError, ContractError, ArithmeticError) as error:
        return _unjudged(f"{layout.PREFLIGHT} holds no facts that can be judged: {_first(error)}"), None
    faults = tuple(_fault(message) for message in _other_files(record.facts, files))
    if not faults:
        return report, record.status
    blocked = {
        "status": PreflightStatus.BLOCKED,
        "summary": f"{layout.PREFLIGHT} is not about the files of this run",
        "checks": (*faults, *report.checks),
    }
    return report.model_copy(update=blocked), record.status


def _other_files(facts: PreflightFacts, files: Files) -> Iterator[str]:
    """Where the facts are about other files than those that the run's later stages will get."""
    honesty = facts.honesty
    measured = {
        layout.CORPUS_MANIFEST: facts.corpus.sha256,
        layout.CHAT: facts.chat.sha256 if facts.chat else None,
        layout.EVAL: facts.eval.sha256 if facts.eval else None,
        layout.PREFERENCES: facts.preferences.sha256 if facts.preferences else None,
        layout.HONESTY: honesty.sha256 if honesty else None,
        **_external(facts.external_sha256, files),
    }
    for path, sha256 in measured.items():
        yield from _difference("was measured on", path, sha256, files)
    if honesty is not None:
        compared = {
            layout.CORPUS_MANIFEST: honesty.corpus_sha256,
            layout.CHAT: honesty.chat_sha256,
            layout.EVAL: honesty.eval_sha256,
            layout.PREFERENCES: honesty.preferences_sha256,
            **_external(honesty.external_sha256, files),
        }
        for path, sha256 in compared.items():
            yield from _difference("has an honesty report about", path, sha256, files)


def _external(said: Mapping[str, str], files: Files) -> dict[str, str | None]:
    """Digests by path: those that were said, and None for a benchmark of the run that nothing was said of."""
    folder = f"{layout.EXTERNAL_DIR}/"
    unsaid: dict[str, str | None] = {path: None for path in files if path.startswith(folder)}
    return unsaid | {f"{folder}{name}.jsonl": sha256 for name, sha256 in said.items()}


def _difference(what: str, path: str, sha256: str | None, files: Files) -> Iterator[str]:
    stored = files[path].sha256 if path in files else None
    if sha256 != stored:
        got, own = (digest[:12] if digest else "none" for digest in (sha256, stored))
        yield f"{layout.PREFLIGHT} {what} {path} with sha256 {got}, the run's has {own}"


def _unjudged(message: str) -> PreflightReport:
    return PreflightReport(
        status=PreflightStatus.BLOCKED, summary=message, budget={}, checks=(_fault(message),)
    )


def _fault(message: str) -> PreflightCheck:
    return PreflightCheck(
        id="stored_facts",
        status=CheckStatus.BLOCK,
        measured=None,
        warn=None,
        block="is not about this run's files",
        profile="all",
        message=message,
        fix=AGAIN,
    )


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _object(store: LocalStore, file: ArtifactOut) -> dict[str, Any]:
    try:
        content = read_json(store, file)
    except Unusable as error:
        raise ApiProblem(409, Code.INPUT_CHANGED, f"{error}; {AGAIN}", param=file.path) from error
    if not isinstance(content, dict):
        raise ApiProblem(
            409, Code.INPUT_CHANGED, f"{file.path} is not a JSON object; {AGAIN}", param=file.path
        )
    return content


def _found(session: Session, project_id: str, run_id: str) -> Run:
    run = runs.run_of_project(session, project_id, run_id)
    if run is None:
        raise not_found("run", run_id[:80])
    return run
