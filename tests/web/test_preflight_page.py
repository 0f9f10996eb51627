"""The preflight page: what blocks first, the plan, what was measured; and what it says where something is missing."""

import json
import re
from collections.abc import Callable

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_contract.preflight_judge import RULES
from picochat_server.db import transaction
from picochat_server.models import PreflightReportRow
from support import seeded_runs as seed
from support.finished_run import FinishedRun
from support.visitors import text_of

Make = Callable[..., FinishedRun]
Show = Callable[[str], str]


def test_preflight_shows_what_blocks_first_with_limit_and_fix(
    app: FastAPI, logged_in: TestClient, project_id: str, show: Show
) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    page = show(f"/runs/{run}/preflight")
    assert f"Blocked by 1 of {len(RULES)} checks. What would fix each:" in page
    assert "honesty block 3 blocks: > 0 3 eval prompts among SFT rows" in page
    assert f"{len(RULES) - 1} checks pass" in page
    rows = re.findall(r'<tr id="check-(\w+)"', logged_in.get(f"/runs/{run}/preflight").text)
    assert (rows[0], len(rows), len(set(rows))) == ("honesty", len(RULES), len(RULES))


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


def test_preflight_names_the_files_that_were_measured(app: FastAPI, project_id: str, show: Show) -> None:
    run = seed.stopped_by_preflight(app, project_id, "leaky")
    page = show(f"/runs/{run}/preflight")
    for path in (layout.CORPUS_MANIFEST, layout.CHAT, layout.EVAL, layout.HONESTY):
        assert re.search(rf"{re.escape(path)} [\w, ]+ [0-9a-f]{{64}}", page), path
    assert "not what the run has there" not in page


def test_preflight_says_which_block_is_waived_and_by_what(app: FastAPI, project_id: str, show: Show) -> None:
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


def test_preflight_flags_facts_about_other_files(make: Make, show: Show) -> None:
    report = json.loads(seed.blocked_files()[layout.PREFLIGHT])
    report["facts"]["chat"]["sha256"] = "e" * 64
    run = make(PREFLIGHT=json.dumps(report).encode())
    page = show(f"/runs/{run.run_id}/preflight")
    assert page.count("not what the run has there") >= 1
    assert re.search(rf"{layout.CHAT} [\d,]+ rows e{{64}} not what the run has there", page)


def test_preflight_that_has_not_happened_says_so(app: FastAPI, project_id: str, show: Show) -> None:
    assert "has not been judged yet" in show(f"/runs/{seed.queued(app, project_id, 'next')}/preflight")
    ended = show(f"/runs/{seed.failed(app, project_id, 'broken')}/preflight")
    assert "has not judged a preflight of this run" in ended


def test_a_judgement_is_shown_although_its_facts_are_gone(make: Make, show: Show) -> None:
    run = make()
    run.flip_byte(layout.PREFLIGHT)
    page = show(f"/runs/{run.run_id}/preflight")
    assert "Ready." in page
    assert f"This report cannot be shown. the stored bytes of {layout.PREFLIGHT} changed" in page
