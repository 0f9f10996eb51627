"""The run page's section about data: verdicts of the reports, and the corpus."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_server.artifacts import json_files
from picochat_server.pages import stored
from support import seeded_runs as seed
from support.finished_run import FinishedRun
from support.visitors import text_of

Make = Callable[..., FinishedRun]
Show = Callable[[str], str]


def test_the_run_page_sums_up_preflight_honesty_and_audit(make: Make, logged_in: TestClient) -> None:
    run = make()
    page = logged_in.get(f"/runs/{run.run_id}").text
    seen = text_of(page)
    assert "Preflight ready every check passes" in seen
    assert "Honesty of the data caution 20 eval items are in the corpus, edited" in seen
    assert f'href="/runs/{run.run_id}/honesty?part=audit"' in page


def test_the_run_page_tells_of_the_corpus(make: Make, show: Show) -> None:
    page = show(f"/runs/{make().run_id}")
    for shown in (
        "Documents 90 Characters 494,792 UTF-8 496.1 kB",
        "97 documents from 3 source files, 1 of them without one in the corpus",
        "Removed 7",
        "duplicate_lines caution 0.259 0.15 25.9% repeated lines",
        "near_duplicate caution not measured 0.05 nobody looked for them",
        "near duplicate 4 too short 2 exact duplicate 1",
        "no licence named 12 30,500",
        "notes.jsonl artifact notes none named 12 its limit was reached 30,500",
        "notes/4 doc-000080 91.3 %",
    ):
        assert shown in page


def test_of_many_licences_and_sources_the_largest_are_shown(make: Make, show: Show) -> None:
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
