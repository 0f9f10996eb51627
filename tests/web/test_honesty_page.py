"""The honesty page: data, audit and memorization, each from its stored report."""

import html
import json
import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from support import reports
from support import seeded_runs as seed
from support.finished_run import FinishedRun, edited
from support.visitors import log_in, new_key

Make = Callable[..., FinishedRun]
Show = Callable[[str], str]


def test_honesty_shows_status_counts_and_the_compared_files(make: Make, show: Show) -> None:
    run = make()
    page = show(f"/runs/{run.run_id}/honesty")
    assert "caution 20 eval items are in the corpus, edited" in page
    assert "Also SFT prompts 0 of 60 eval prompts, after normalisation" in page
    for path in (layout.CHAT, layout.EVAL, layout.HONESTY):
        assert run.digest(path) in page
    assert f"{layout.EVAL} 60 eval items {run.digest(layout.EVAL)}" in page
    # The fixture's honesty report is about the manifest of the same run.
    assert "not what the run has there" not in page


def test_the_matrix_says_its_risks_in_words_highest_first(make: Make, show: Show) -> None:
    page = show(f"/runs/{make().run_id}/honesty")
    assert re.search(r"eval in corpus medium 60 2 too short 20 .* 0 / 20 41.0 %", page)
    assert "external in corpus there is nothing in corpus to look in not checked" in page
    risks = [
        page.index(words)
        for words in ("eval in corpus", "external in corpus", "eval in sft", "sft in corpus")
    ]
    assert risks == sorted(risks)


def test_every_measure_has_its_threshold_and_source(make: Make, show: Show) -> None:
    page = show(f"/runs/{make().run_id}/honesty")
    for name, (threshold, source, description) in reports.MEASURES.items():
        assert f"{name} {threshold:g} {description} {source}" in page


def test_items_that_are_not_clean_have_their_scores_and_lines(make: Make, show: Show) -> None:
    page = show(f"/runs/{make().run_id}/honesty")
    assert "Score on all items: 36.7 %, 22 of 60." in page
    assert "Without every item that any measure marks: 30.0 %, 12 of 40." in page
    assert re.search(r"near 20 of 60 30.0 % 12 of 40.* 50.0 % 10 of 20.* \+6.7 points 1, 2, 3,", page)
    assert "No item is marked by exact, normalised, ngram_any_13," in page


def test_scores_of_another_eval_file_are_not_shown(make: Make, show: Show) -> None:
    report = edited(seed.blocked_files()[layout.EVAL_REPORT], eval_sha256="d" * 64)
    page = show(f"/runs/{make(EVAL_REPORT=report).run_id}/honesty")
    assert "about another eval file than this report" in page
    assert "points" not in page


def test_without_an_eval_report_the_marked_items_are_still_listed(make: Make, show: Show) -> None:
    page = show(f"/runs/{make(EVAL_REPORT=None).run_id}/honesty")
    assert "The eval has not been scored, so what these items are worth is not known." in page
    assert "near 20 of 60 1, 2, 3," in page


def test_findings_come_in_pages_with_what_is_left_out(make: Make, logged_in: TestClient, show: Show) -> None:
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


def test_findings_are_filtered_by_pair(make: Make, show: Show) -> None:
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


def test_the_audit_has_a_part_of_its_own(make: Make, show: Show) -> None:
    page = show(f"/runs/{make().run_id}/honesty?part=audit")
    assert "Eval prompts trained on 0 of 60, found in trained documents or rows" in page
    assert "Trained documents 90" in page
    assert "Copied texts 0.0 % 0 of 60 generated texts, 95 %" in page
    assert "1 to 3 of 3 listed" in page


def test_memorization_is_shown_by_repeats_with_its_controls_and_floor(make: Make, show: Show) -> None:
    page = show(f"/runs/{make().run_id}/honesty?part=memorization")
    assert "64 times 8 8.0 bits 95 % 4.0 to 8.0 8.0 bits 87.5 % 7 of 8" in page
    assert "never, control 8 1.4 bits" in page
    assert "10 or more 42.9 % 6 of 14" in page
    assert "held out 0.5 % 1 of 200" in page
    assert "standard types that are built into the interpreter" in page


def test_a_run_without_canaries_says_so(make: Make, show: Show) -> None:
    report = json.dumps(reports.memorization() | {"exposure": None}).encode()
    page = show(f"/runs/{make(MEMORIZATION_REPORT=report).run_id}/honesty?part=memorization")
    assert "No canaries were planted" in page


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
