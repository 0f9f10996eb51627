"""The preflight page: the server's judgement, the numbers that it rests on, and the files that were measured."""

from collections.abc import Iterator, Mapping
from typing import Any

from picochat_contract import layout
from picochat_contract.api_data import PreflightOut
from picochat_contract.errors import Code
from picochat_contract.preflight import PreflightRecord
from picochat_contract.preflight_facts import PreflightFacts
from sqlalchemy.orm import Session

from picochat_server.artifacts.store import LocalStore
from picochat_server.auth.principal import Principal
from picochat_server.pages import formats
from picochat_server.pages.context import Figure
from picochat_server.pages.data_context import MeasuredFile, PreflightPage
from picochat_server.pages.stored import Files, files_of, read_report
from picochat_server.pages.viewer import viewer_of
from picochat_server.preflight import service as preflight
from picochat_server.problems import ApiProblem
from picochat_server.runs import service as runs


def preflight_page(session: Session, store: LocalStore, principal: Principal, run_id: str) -> PreflightPage:
    run = runs.run_out(session, principal.project_id, run_id)
    files = files_of(session, principal.project_id, run_id)
    out = judged(session, principal.project_id, run_id)
    record = read_report(store, files, layout.PREFLIGHT, PreflightRecord)
    facts = record.content.facts if record.content else None
    return PreflightPage(
        viewer=viewer_of(session, principal),
        run=run,
        out=out,
        record=record,
        figures=tuple(_budget_figures(out.report.budget, facts)) if out else (),
        measured=tuple(_measured_files(facts, files)) if facts else (),
    )


def judged(session: Session, project_id: str, run_id: str) -> PreflightOut | None:
    """The server's report; None before there is one."""
    try:
        return preflight.preflight_out(session, project_id, run_id)
    except ApiProblem as problem:
        if problem.code != Code.PREFLIGHT_NOT_READY:
            raise
        return None


def _budget_figures(budget: Mapping[str, Any], facts: PreflightFacts | None) -> Iterator[Figure]:
    """Headline numbers of the plan. They are estimates; what they were computed from stands in the whole list."""

    def number(name: str) -> float | None:
        value = budget.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def figure(label: str, value: str | None, note: str) -> Figure:
        return Figure(label=label, value=value, note=note)

    def shown(name: str) -> str | None:
        value = number(name)
        return None if value is None else formats.count(value)

    def short(name: str) -> str | None:
        value = number(name)
        return None if value is None else formats.compact(value)

    def bytes_of(name: str) -> str | None:
        value = number(name)
        return None if value is None else formats.size(round(value))

    hours = number("estimated_hours")
    free = facts.machine.free_disk_bytes if facts else None
    yield figure(
        "Parameters", shown("estimated_parameters"), f"vocabulary {shown('vocab_size') or 'not known'}"
    )
    yield figure("Planned tokens", shown("base_planned_tokens"), "base steps times tokens per step")
    yield figure(
        "Tokens per parameter",
        short("planned_param_data_ratio"),
        f"planned; the target is {short('target_param_data_ratio') or 'not known'}",
    )
    yield figure(
        "Corpus epochs",
        short("estimated_base_epochs"),
        f"of about {shown('estimated_corpus_tokens') or 'an unknown number of'} tokens",
    )
    yield figure(
        "Memory",
        bytes_of("memory_bytes"),
        f"per rank, of {bytes_of('device_memory_bytes') or 'an unknown size'} on {budget.get('device', 'the device')}",
    )
    yield figure(
        "Disk",
        bytes_of("disk_bytes"),
        f"of {formats.size(free)} free" if free is not None else "free space not known",
    )
    yield figure(
        "Time",
        None if hours is None else formats.seconds(hours * 3600),
        "estimate for base and SFT" if hours is not None else "no speed is known of this device",
    )


def _measured_files(facts: PreflightFacts, files: Files) -> Iterator[MeasuredFile]:
    corpus, count = facts.corpus, formats.count
    parts: list[tuple[str, str, str]] = [
        (
            layout.CORPUS_MANIFEST,
            corpus.sha256,
            f"{count(corpus.num_documents)} documents, {count(corpus.num_characters)} characters",
        )
    ]
    if facts.chat:
        parts.append((layout.CHAT, facts.chat.sha256, f"{count(facts.chat.num_rows)} rows"))
    if facts.eval:
        parts.append((layout.EVAL, facts.eval.sha256, f"{count(facts.eval.num_items)} items"))
    if facts.preferences:
        parts.append(
            (layout.PREFERENCES, facts.preferences.sha256, f"{count(facts.preferences.num_rows)} rows")
        )
    if facts.honesty:
        parts.append((layout.HONESTY, facts.honesty.sha256, facts.honesty.status))
    for path, sha256, counts in parts:
        is_runs = path in files and files[path].sha256 == sha256
        yield MeasuredFile(path=path, sha256=sha256, counts=counts, is_runs=is_runs)
