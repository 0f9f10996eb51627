"""The honesty page in three parts: data against data, what was really trained on, memorization."""

from collections.abc import Iterator

from picochat_contract import layout
from sqlalchemy.orm import Session

from picochat_server.artifacts.store import LocalStore
from picochat_server.auth.principal import Principal
from picochat_server.pages import formats, honesty
from picochat_server.pages.context import Figure
from picochat_server.pages.data_context import HonestyPage, Part, PartLink
from picochat_server.pages.honesty import AuditReport, EvalScores, Head, HonestyReport
from picochat_server.pages.memorization import MemorizationReport
from picochat_server.pages.stored import Stored, files_of, read_report
from picochat_server.pages.viewer import viewer_of
from picochat_server.runs import service as runs

PARTS: tuple[tuple[Part, str], ...] = (
    ("data", "Data against data"),
    ("audit", "What was trained on"),
    ("memorization", "Memorization"),
)
LEAKS = (
    ("exact_prompt_leaks", "Also SFT prompts", "of {num_eval} eval prompts, after normalisation"),
    ("preference_prompt_leaks", "Also preference prompts", "of {num_eval} eval prompts, after normalisation"),
    ("near_prompt_leaks", "Edited copies", "of eval prompts among the tuning prompts"),
    ("corpus_prompt_hits", "In the corpus", "of {num_eval} eval prompts, after normalisation"),
    ("duplicate_eval_prompts", "Repeated in the eval", "prompts that stand there more than once"),
)


def honesty_page(
    session: Session,
    store: LocalStore,
    principal: Principal,
    run_id: str,
    part: Part,
    pair: str | None,
    number: int,
) -> HonestyPage:
    run = runs.run_out(session, principal.project_id, run_id)
    files = files_of(session, principal.project_id, run_id)
    report: Stored[HonestyReport] | Stored[AuditReport] | None = None
    if part == "data":
        report = read_report(store, files, layout.HONESTY, HonestyReport)
    elif part == "audit":
        report = read_report(store, files, layout.AUDIT, AuditReport)
    content = report.content if report else None
    scores = read_report(store, files, layout.EVAL_REPORT, EvalScores) if part == "data" else None
    measured = scores.content if scores else None
    return HonestyPage(
        viewer=viewer_of(session, principal),
        run=run,
        part=part,
        parts=tuple(
            PartLink(
                part=one,
                label=label,
                href=f"/runs/{run.id}/honesty" + (f"?part={one}" if one != "data" else ""),
                is_current=one == part,
            )
            for one, label in PARTS
        ),
        honesty=read_report(store, files, layout.HONESTY, Head, remember=True),
        audit=read_report(store, files, layout.AUDIT, Head, remember=True),
        report=report,
        figures=tuple(_counts(content)) if content else (),
        compared=honesty.compared_files(content, files) if content else (),
        unclean=honesty.unclean(content, measured) if content else (),
        scores=scores,
        scores_fit=bool(content and measured and honesty.is_about(content, measured)),
        findings=honesty.findings_page(content, pair, number) if content else None,
        memorization=read_report(store, files, layout.MEMORIZATION_REPORT, MemorizationReport)
        if part == "memorization"
        else None,
    )


def _counts(report: HonestyReport | AuditReport) -> Iterator[Figure]:
    """One value per card."""
    if isinstance(report, HonestyReport):
        for name, label, note in LEAKS:
            value = formats.count(getattr(report, name))
            yield Figure(label=label, value=value, note=note.format(num_eval=formats.count(report.num_eval)))
        return
    held_out = report.held_out_documents
    yield Figure(
        label="Eval prompts trained on",
        value=formats.count(report.trained_prompt_hits),
        note=f"of {formats.count(report.num_eval)}, found in trained documents or rows",
    )
    yield Figure(
        label="Trained documents",
        value=formats.count(report.trained_documents),
        note="held out: not recorded"
        if held_out is None
        else f"{formats.count(held_out)} more were held out",
    )
    yield Figure(label="Trained SFT rows", value=formats.count(report.trained_rows), note="really used")
    copied = report.copied
    words = "" if report.copied_words is None else f" of {report.copied_words} words or more"
    yield Figure(
        label="Copied texts",
        value=formats.percent(copied.pass_rate) if copied.num_examples else None,
        note=f"{copied.num_passed} of {copied.num_examples} generated texts{words}, "
        f"95 % {formats.percent(copied.low)} to {formats.percent(copied.high)}"
        if copied.num_examples
        else f"no generated text{words} to judge",
    )
