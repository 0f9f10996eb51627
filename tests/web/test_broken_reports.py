"""Reports that are missing, broken, too large or hostile: the page says so and does no harm."""

import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_server.pages import stored
from support import hostile_reports
from support import seeded_runs as seed
from support.finished_run import FinishedRun

ATTACK = "<script>alert('x')</script>\"'&"
HIDDEN = "ab\u202ecd\x1b[31m\x00\u2028e"
SHOWN = r"ab\u202ecd\x1b[31m\x00\u2028e"
Make = Callable[..., FinishedRun]
Show = Callable[[str], str]


REPORTS = {
    "HONESTY": "honesty",
    "AUDIT": "honesty?part=audit",
    "MEMORIZATION_REPORT": "honesty?part=memorization",
    "EVAL_REPORT": "honesty",
    "CORPUS_MANIFEST": "",
    "PREFLIGHT": "preflight",
}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'{"status": 7, "stats": []}', b"\xff", b"[" * 100_000],
    ids=["list", "empty", "wrong types", "not utf-8", "endless"],
)
def test_a_broken_report_is_said_on_its_page_and_breaks_no_other(
    make: Make, show: Show, name: str, content: bytes
) -> None:
    run = make(**{name: content})
    assert "This report cannot be shown." in show(f"/runs/{run.run_id}/{REPORTS[name]}".rstrip("/"))
    for path in ("", "/live", *(f"/{part}" for part in REPORTS.values() if part)):
        show(f"/runs/{run.run_id}{path}")


@pytest.mark.parametrize("name", ["HONESTY", "AUDIT", "MEMORIZATION_REPORT", "EVAL_REPORT"])
def test_a_missing_report_is_said_on_its_page(make: Make, show: Show, name: str) -> None:
    page = show(f"/runs/{make(**{name: None}).run_id}/{REPORTS[name]}")
    assert re.search(r"has no (honesty|audit) report|has not been (measured|scored)", page)


def test_a_changed_report_is_not_believed(make: Make, show: Show) -> None:
    run = make()
    run.flip_byte(layout.HONESTY)
    page = show(f"/runs/{run.run_id}/honesty")
    assert f"the stored bytes of {layout.HONESTY} changed" in page
    assert "Contamination" not in page


def test_a_report_over_the_limit_is_not_read(make: Make, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make()
    monkeypatch.setattr(stored, "MAX_REPORT_BYTES", 2_000)
    monkeypatch.setattr(stored, "read_json", lambda *_: pytest.fail("it was read"))
    page = show(f"/runs/{run.run_id}/honesty?part=memorization")
    assert re.search(r"has [\d.]+ kB, a page reads at most 2.0 kB of a report; download it", page)


def test_a_run_that_has_begun_has_pages_that_say_what_is_missing(
    app: FastAPI, project_id: str, show: Show
) -> None:
    run = seed.running(app, project_id, "nightly")
    assert "The run has no honesty report yet" in show(f"/runs/{run}/honesty")
    assert "The run has no audit report yet" in show(f"/runs/{run}/honesty?part=audit")
    assert "has not been measured yet" in show(f"/runs/{run}/honesty?part=memorization")
    assert "No corpus has been built yet." in show(f"/runs/{run}")


HOSTILE = (
    ("HONESTY", hostile_reports.honesty),
    ("CORPUS_MANIFEST", hostile_reports.manifest),
    ("MEMORIZATION_REPORT", hostile_reports.memorization),
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
