"""Preflight, honesty and corpus on pages: what reports say is shown, what is missing, broken or hostile does no harm."""

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_server.artifacts import json_files
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.models import PreflightReportRow
from picochat_server.pages import stored
from support import reports
from support import seeded_runs as seed
from support.finished_run import FinishedRun, edited
from support.visitors import log_in, new_key, text_of

ATTACK = "<script>alert('x')</script>\"'&"
HIDDEN = "ab\u202ecd\x1b[31m\x00\u2028e"
SHOWN = r"ab\u202ecd\x1b[31m\x00\u2028e"
Make = Callable[..., FinishedRun]


@pytest.fixture
def make(app: FastAPI, project_id: str) -> Make:
    """A finished run with weak results, some of its files changed."""

    def finish(**changed: bytes | None) -> FinishedRun:
        files = seed.blocked_files()
        for name, content in changed.items():
            path = getattr(layout, name)
            if content is None:
                del files[path]
            else:
                files[path] = content
        return seed.finished(app, project_id, "demo", files)

    return finish


@pytest.fixture
def show(logged_in: TestClient) -> Callable[[str], str]:
    """What a reader sees of a page that must be there."""

    def read(path: str) -> str:
        answer = logged_in.get(path)
        assert answer.status_code == 200, answer.text
        return html.unescape(text_of(answer.text))

    return read


# --- preflight ---


def test_preflight_shows_what_blocks_first_with_limit_and_fix(
    app: FastAPI, logged_in: TestClient, project_id: str, show: Callable[[str], str]
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    page = show(f"/runs/{run}/preflight")
    assert "Blocked by 1 of 54 checks. What would fix each:" in page
    assert "honesty block 3 blocks > 0 3 eval prompts among SFT rows" in page
    assert "53 checks pass" in page
    rows = re.findall(r'<tr id="check-(\w+)"', logged_in.get(f"/runs/{run}/preflight").text)
    assert (rows[0], len(rows), len(set(rows))) == ("honesty", 54, 54)


def test_preflight_shows_the_plan_one_number_a_card(
    app: FastAPI, logged_in: TestClient, project_id: str
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    page = logged_in.get(f"/runs/{run}/preflight").text
    cards = re.findall(r'figure-label">([^<]+)</span>\s*<strong>(.*?)</strong>', page, re.DOTALL)
    names = [name for name, _ in cards]
    wanted = [
        "Parameters",
        "Planned tokens",
        "Tokens per parameter",
        "Corpus epochs",
        "Memory",
        "Disk",
        "Time",
    ]
    assert names == wanted
    assert dict(cards)["Parameters"] == "1,050,240"
    assert "Memory" in text_of(page) and "of 17.6 TB free" in page


def test_preflight_names_the_files_that_were_measured(
    app: FastAPI, project_id: str, show: Callable[[str], str]
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    page = show(f"/runs/{run}/preflight")
    for path in (layout.CORPUS_MANIFEST, layout.CHAT, layout.EVAL, layout.HONESTY):
        assert re.search(rf"{re.escape(path)} [\w, ]+ [0-9a-f]{{64}}", page), path
    assert "not what the run has there" not in page


def test_preflight_says_which_block_is_waived_and_by_what(
    app: FastAPI, project_id: str, show: Callable[[str], str]
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    with transaction(app.state.sessions) as session:
        row = session.get_one(PreflightReportRow, run)
        checks = [
            check | {"waived_by": "preflight.allow_leaky_eval"} if check["status"] == "block" else check
            for check in row.report["checks"]
        ]
        row.report = row.report | {"status": "warn", "summary": "waived: honesty", "checks": checks}
    page = show(f"/runs/{run}/preflight")
    assert "Not blocked. waived: honesty." in page
    assert "0 block, 1 waived" in page
    assert "honesty block, waived by preflight.allow_leaky_eval" in page


def test_preflight_flags_facts_about_other_files(make: Make, show: Callable[[str], str]) -> None:
    report = json.loads(seed.blocked_files()[layout.PREFLIGHT])
    report["facts"]["chat"]["sha256"] = "e" * 64
    run = make(PREFLIGHT=json.dumps(report).encode())
    page = show(f"/runs/{run.run_id}/preflight")
    assert page.count("not what the run has there") >= 1
    assert re.search(rf"{layout.CHAT} [\d,]+ rows e{{64}} not what the run has there", page)


def test_preflight_that_has_not_happened_says_so(
    app: FastAPI, project_id: str, show: Callable[[str], str]
) -> None:
    assert "has not been judged yet" in show(f"/runs/{seed.queued(app, project_id, 'next')}/preflight")
    ended = show(f"/runs/{seed.failed(app, project_id, 'broken')}/preflight")
    assert "has not judged a preflight of this run" in ended


def test_a_judgement_is_shown_although_its_facts_are_gone(make: Make, show: Callable[[str], str]) -> None:
    run = make()
    run.flip_byte(layout.PREFLIGHT)
    page = show(f"/runs/{run.run_id}/preflight")
    assert "Ready." in page
    assert f"This report cannot be shown. the stored bytes of {layout.PREFLIGHT} changed" in page


# --- honesty ---


def test_honesty_shows_status_counts_and_the_compared_files(make: Make, show: Callable[[str], str]) -> None:
    run = make()
    page = show(f"/runs/{run.run_id}/honesty")
    assert "caution 20 eval items are in the corpus, edited" in page
    assert "Also SFT prompts 0 of 60 eval prompts, after normalisation" in page
    for path in (layout.CHAT, layout.EVAL, layout.HONESTY):
        assert run.digest(path) in page
    # The fixture's honesty report is about the manifest of the same run.
    assert "not what the run has there" not in page


def test_the_matrix_says_its_risks_in_words_highest_first(make: Make, show: Callable[[str], str]) -> None:
    page = show(f"/runs/{make().run_id}/honesty")
    assert re.search(r"eval in corpus medium 60 2 too short 20 .* 0 / 20 41.0 %", page)
    assert "external in corpus there is nothing in corpus to look in not checked" in page
    risks = [
        page.index(words)
        for words in ("eval in corpus", "external in corpus", "eval in sft", "sft in corpus")
    ]
    assert risks == sorted(risks)


def test_every_measure_has_its_threshold_and_source(make: Make, show: Callable[[str], str]) -> None:
    page = show(f"/runs/{make().run_id}/honesty")
    for name, (threshold, source, description) in reports.MEASURES.items():
        assert f"{name} {threshold:g} {description} {source}" in page


def test_items_that_are_not_clean_have_their_scores_and_lines(make: Make, show: Callable[[str], str]) -> None:
    page = show(f"/runs/{make().run_id}/honesty")
    assert "Score on all items: 36.7 %, 22 of 60." in page
    assert "Without every item that any measure marks: 30.0 %, 12 of 40." in page
    assert re.search(r"near 20 of 60 30.0 % 12 of 40.* 50.0 % 10 of 20.* \+6.7 points 1, 2, 3,", page)
    assert "No item is marked by exact, normalised, ngram_any_13," in page


def test_scores_of_another_eval_file_are_not_shown(make: Make, show: Callable[[str], str]) -> None:
    report = edited(seed.blocked_files()[layout.EVAL_REPORT], eval_sha256="d" * 64)
    page = show(f"/runs/{make(EVAL_REPORT=report).run_id}/honesty")
    assert "about another eval file than this report" in page
    assert "points" not in page


def test_without_an_eval_report_the_marked_items_are_still_listed(
    make: Make, show: Callable[[str], str]
) -> None:
    page = show(f"/runs/{make(EVAL_REPORT=None).run_id}/honesty")
    assert "The eval has not been scored, so what these items are worth is not known." in page
    assert "near 20 of 60 1, 2, 3," in page


def test_findings_come_in_pages_with_what_is_left_out(
    make: Make, logged_in: TestClient, show: Callable[[str], str]
) -> None:
    address = f"/runs/{make().run_id}/honesty"
    first, last = show(address), show(f"{address}?page=3")
    assert "1 to 25 of 60 listed. The report counts 12 more that it does not list." in first
    assert "51 to 60 of 60 listed" in last
    assert "eval:1 in notes/rivers eval in corpus; near 0.81 on prompt; line 1 of eval" in first
    assert "remove notes/rivers from what trains" in first
    assert "<mark>the 1 rivers that cross the nor</mark>thern plain" in logged_in.get(address).text
    assert show(f"{address}?page=2147483647") == last, "a page behind the end is the last one"
    following = re.search(r'href="([^"]+)" rel="next"', logged_in.get(address).text)
    assert following
    assert "26 to 50 of 60" in show(html.unescape(following[1]))


def test_findings_are_filtered_by_pair(make: Make, show: Callable[[str], str]) -> None:
    found = [reports.finding(1), reports.finding(2, pair="sft_vs_eval")]
    report = edited(seed.blocked_files()[layout.HONESTY], findings=found, findings_omitted=0)
    address = f"/runs/{make(HONESTY=report).run_id}/honesty"
    page = show(f"{address}?pair=sft_vs_eval")
    assert "1 to 1 of 1 listed for sft_vs_eval" in page
    assert "eval:2 in notes/rivers" in page and "eval:1 in notes/rivers" not in page
    assert "1 to 2 of 2 listed." in show(f"{address}?pair=no_such_pair")


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=99999999999999999999", "part=everything"])
def test_a_senseless_query_is_refused(make: Make, logged_in: TestClient, query: str) -> None:
    assert logged_in.get(f"/runs/{make().run_id}/honesty?{query}").status_code == 422


def test_the_audit_has_a_part_of_its_own(make: Make, show: Callable[[str], str]) -> None:
    page = show(f"/runs/{make().run_id}/honesty?part=audit")
    assert "Eval prompts trained on 0 of 60, found in trained documents or rows" in page
    assert "Trained documents 90" in page
    assert "Copied texts 0.0 % 0 of 60 generated texts, 95 %" in page
    assert "1 to 3 of 3 listed" in page


def test_memorization_is_shown_by_repeats_with_its_controls_and_floor(
    make: Make, show: Callable[[str], str]
) -> None:
    page = show(f"/runs/{make().run_id}/honesty?part=memorization")
    assert "64 times 8 8.0 bits 95 % 4.0 to 8.0 8.0 bits 87.5 % 7 of 8" in page
    assert "never, control 8 1.4 bits" in page
    assert "10 or more 42.9 % 6 of 14" in page
    assert "held out 0.5 % 1 of 200" in page
    assert "standard types that are built into the interpreter" in page


def test_a_run_without_canaries_says_so(make: Make, show: Callable[[str], str]) -> None:
    report = json.dumps(reports.memorization() | {"exposure": None}).encode()
    page = show(f"/runs/{make(MEMORIZATION_REPORT=report).run_id}/honesty?part=memorization")
    assert "No canaries were planted" in page


REPORTS = {
    "HONESTY": "honesty",
    "AUDIT": "honesty?part=audit",
    "MEMORIZATION_REPORT": "honesty?part=memorization",
    "EVAL_REPORT": "honesty",
    "CORPUS_MANIFEST": "",
    "PREFLIGHT": "preflight",
}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"status": 7, "stats": []}', b"\xff", b"[" * 100_000])
def test_a_broken_report_is_said_on_its_page_and_breaks_no_other(
    make: Make, show: Callable[[str], str], name: str, content: bytes
) -> None:
    run = make(**{name: content})
    assert "This report cannot be shown." in show(f"/runs/{run.run_id}/{REPORTS[name]}".rstrip("/"))
    for path in ("", "/live", *(f"/{part}" for part in REPORTS.values() if part)):
        show(f"/runs/{run.run_id}{path}")


@pytest.mark.parametrize("name", ["HONESTY", "AUDIT", "MEMORIZATION_REPORT", "EVAL_REPORT"])
def test_a_missing_report_is_said_on_its_page(make: Make, show: Callable[[str], str], name: str) -> None:
    page = show(f"/runs/{make(**{name: None}).run_id}/{REPORTS[name]}")
    assert re.search(r"has no (honesty|audit) report|has not been (measured|scored)", page)


def test_a_changed_report_is_not_believed(make: Make, show: Callable[[str], str]) -> None:
    run = make()
    run.flip_byte(layout.HONESTY)
    page = show(f"/runs/{run.run_id}/honesty")
    assert f"the stored bytes of {layout.HONESTY} changed" in page
    assert "Contamination" not in page


def test_a_report_over_the_limit_is_not_read(
    make: Make, show: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make()
    monkeypatch.setattr(stored, "MAX_REPORT_BYTES", 2_000)
    monkeypatch.setattr(stored, "read_json", lambda *_: pytest.fail("it was read"))
    page = show(f"/runs/{run.run_id}/honesty?part=memorization")
    assert re.search(r"has [\d.]+ kB, a page reads at most 2.0 kB of a report; download it", page)


def test_a_run_that_has_begun_has_pages_that_say_what_is_missing(
    app: FastAPI, project_id: str, show: Callable[[str], str]
) -> None:
    run = seed.running(app, project_id, "nightly")
    assert "The run has no honesty report yet" in show(f"/runs/{run}/honesty")
    assert "The run has no audit report yet" in show(f"/runs/{run}/honesty?part=audit")
    assert "has not been measured yet" in show(f"/runs/{run}/honesty?part=memorization")
    assert "No corpus has been built yet." in show(f"/runs/{run}")


def hostile_honesty(text: str) -> bytes:
    """A report whose every free text is `text`."""
    place = {"source": text, "id": text, "path": text, "line": 3}
    found = reports.finding(
        1, kind=text, pair=text, measure=text, variant=text, target_text=text, span_text=text
    )
    found |= {"target": place, "place": place, "message": text, "fix": text}
    pair = reports.pair("corpus_vs_eval", 3) | {
        "pair": text,
        "reference": text,
        "target": text,
        "reason": text,
    }
    return edited(
        seed.blocked_files()[layout.HONESTY],
        summary=text,
        findings=[found],
        measures={text: {"threshold": 1, "source": text, "description": text}},
        dirty_eval_lines={text: [1, 2]},
        external_sha256={text: text},
        contamination_matrix={"pairs": [pair]},
    )


def hostile_manifest(text: str) -> bytes:
    content = json.loads(seed.blocked_files()[layout.CORPUS_MANIFEST])
    share = {"documents": 1, "characters": 1}
    source = {"type": text, "name": text, "label": text, "license": text, **share}
    content["readiness"]["summary"] = text
    content["readiness"]["checks"][0] |= {"name": text, "message": text}
    content |= {"licenses": {text: share}, "labels": {text: share}, "dropped_counts": {text: 1}}
    content |= {
        "sources": [source],
        "dropped": [{"path": text, "reason": "near_duplicate", "duplicate_of": text}],
    }
    return json.dumps(content).encode()


def hostile_memorization(text: str) -> bytes:
    content = reports.memorization()
    content["exposure"]["note"] = text
    content["extraction"]["strata"][0]["occurrences"] = text
    content["extraction"]["examples"][0] |= {"document_id": text, "prefix": text, "text": text}
    return json.dumps(content).encode()


HOSTILE: tuple[tuple[str, Callable[[str], bytes]], ...] = (
    ("HONESTY", hostile_honesty),
    ("CORPUS_MANIFEST", hostile_manifest),
    ("MEMORIZATION_REPORT", hostile_memorization),
)


@pytest.mark.parametrize(("name", "written"), HOSTILE)
def test_markup_in_a_report_is_text(
    make: Make, logged_in: TestClient, name: str, written: Callable[[str], bytes]
) -> None:
    run = make(**{name: written(ATTACK)})
    page = logged_in.get(f"/runs/{run.run_id}/{REPORTS[name]}".rstrip("/")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert '"\'&"' not in page, "no attribute is left by a quote"


@pytest.mark.parametrize(("name", "written"), HOSTILE)
def test_what_cannot_be_seen_is_shown_as_an_escape(
    make: Make, logged_in: TestClient, name: str, written: Callable[[str], bytes]
) -> None:
    run = make(**{name: written(HIDDEN)})
    page = logged_in.get(f"/runs/{run.run_id}/{REPORTS[name]}".rstrip("/")).text
    assert SHOWN in page
    assert not re.search("[\x00\x1b\u202e\u2028]", page)


@pytest.mark.parametrize(("name", "written"), HOSTILE)
def test_a_long_text_is_cut_and_says_by_how_much(
    make: Make, logged_in: TestClient, name: str, written: Callable[[str], bytes]
) -> None:
    run = make(**{name: written("x" * 100_000)})
    page = logged_in.get(f"/runs/{run.run_id}/{REPORTS[name]}".rstrip("/")).text
    assert len(page) < 200_000
    assert re.search(r"\.\.\. \(9\d,\d\d\d more characters\)", page)


def test_pages_of_another_project_are_not_there(app: FastAPI, make: Make) -> None:
    run = make()
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
    stranger = log_in(app, new_key(app, other, "admin"))
    for part in ("preflight", "honesty"):
        assert stranger.get(f"/runs/{run.run_id}/{part}").status_code == 404


def test_reports_are_offered_for_download_only_with_the_scope(
    app: FastAPI, project_id: str, make: Make, logged_in: TestClient
) -> None:
    run = make()
    link = f"/runs/{run.run_id}/files/{layout.HONESTY}"
    assert f'href="{link}"' in logged_in.get(f"/runs/{run.run_id}/honesty").text
    reader = log_in(app, new_key(app, project_id, "runs:read"))
    assert "/files/" not in reader.get(f"/runs/{run.run_id}/honesty").text


# --- the run page ---


def test_the_run_page_sums_up_preflight_honesty_and_audit(make: Make, logged_in: TestClient) -> None:
    run = make()
    page = logged_in.get(f"/runs/{run.run_id}").text
    seen = text_of(page)
    assert "Preflight ready every check passes" in seen
    assert "Honesty of the data caution 20 eval items are in the corpus, edited" in seen
    assert f'href="/runs/{run.run_id}/honesty?part=audit"' in page


def test_the_run_page_tells_of_the_corpus(make: Make, show: Callable[[str], str]) -> None:
    page = show(f"/runs/{make().run_id}")
    for shown in (
        "Documents 90 Characters 494,792 UTF-8 496.1 kB",
        "97 documents of 3 files, 1 of them without one in the corpus",
        "Removed 7",
        "duplicate_lines caution 0.259 0.15 25.9% repeated lines",
        "near_duplicate caution not measured 0.05 nobody looked for them",
        "near duplicate 4 too short 2 exact duplicate 1",
        "no licence named 12 30,500",
        "notes.jsonl artifact notes none named 12 its limit was reached 30,500",
        "notes/4 doc-000080 91.3 %",
    ):
        assert shown in page


def test_of_many_licences_and_sources_the_largest_are_shown(make: Make, show: Callable[[str], str]) -> None:
    content = json.loads(seed.blocked_files()[layout.CORPUS_MANIFEST])
    content["licenses"] = {f"licence-{n}": {"documents": n, "characters": n} for n in range(1, 51)}
    content["sources"] = [
        {"type": "artifact", "name": f"s{n}", "documents": 1, "characters": 1} for n in range(50)
    ]
    page = show(f"/runs/{make(CORPUS_MANIFEST=json.dumps(content).encode()).run_id}")
    assert "The 20 largest of 50." in page and "The first 20 of 50 sources." in page
    assert "licence-50" in page and "licence-30 " not in page


def test_a_live_page_parses_a_report_once(
    make: Make, logged_in: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make()
    read: list[str] = []

    def counted(store: Any, file: Any) -> Any:
        read.append(file.path)
        return json_files.read_json(store, file)

    monkeypatch.setattr(stored, "read_json", counted)
    for _ in range(3):
        logged_in.get(f"/runs/{run.run_id}/live")
    assert sorted(read) == sorted([layout.CORPUS_MANIFEST, layout.HONESTY, layout.AUDIT])
