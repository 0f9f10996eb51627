"""The dataset pages: versions by key, files with their roles, the runs that read a version."""

import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.api_data import DatasetOut
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.models import Run
from picochat_server.pages import dataset_view
from support import seeded_datasets
from support import seeded_runs as seed
from support.visitors import Key, log_in, new_key, text_of

ATTACK = "<script>alert('x')</script>"
Push = Callable[..., DatasetOut]


@pytest.fixture
def push(app: FastAPI, project_id: str, key: Key) -> Push:
    def pushed(name: str, num_corpus_files: int = 1, **fields: object) -> DatasetOut:
        return seeded_datasets.pushed(app, project_id, key.id, name, num_corpus_files, **fields)

    return pushed


def read(app: FastAPI, run_id: str, dataset: dict[str, object]) -> None:
    """Give a run's stored spec this dataset section."""
    with transaction(app.state.sessions) as session:
        run = session.get_one(Run, run_id)
        run.spec = {**run.spec, "dataset": {**run.spec["dataset"], **dataset}}


def test_an_empty_list_tells_how_to_push(logged_in: TestClient) -> None:
    page = logged_in.get("/datasets").text
    assert "No datasets yet" in page
    assert "picochat-client data push" in page


def test_the_list_shows_every_version_newest_first(logged_in: TestClient, push: Push) -> None:
    first, second = push("notes", license="CC0-1.0"), push("notes", 2, description="more of them")
    page = logged_in.get("/datasets").text
    assert re.findall(r'href="/datasets/(ds_\w+)"', page) == [second.id, first.id]
    seen = text_of(page)
    assert f"notes more of them 2 pack 4 {second.size_bytes} B none named {second.digest[:12]}..." in seen
    assert f"1 pack 3 {first.size_bytes} B CC0-1.0" in seen


def test_the_list_pages_by_key_and_keeps_the_name(
    logged_in: TestClient, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_view, "PAGE_SIZE", 2)
    ids = [push("notes", number).id for number in range(1, 6)]
    push("other")
    seen: list[str] = []
    path: str | None = "/datasets?name=notes"
    while path is not None:
        page = logged_in.get(path).text
        seen += re.findall(r'href="/datasets/(ds_\w+)"', page)
        older = re.search(r'href="([^"]+)" rel="next"', page)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == ids[::-1]


def test_a_name_without_versions_says_so(logged_in: TestClient) -> None:
    assert "Show all datasets" in logged_in.get("/datasets?name=nothing").text


@pytest.mark.parametrize("query", ["name=../x", "after=%00", "after=nothing"])
def test_a_senseless_query_is_refused(logged_in: TestClient, query: str) -> None:
    assert logged_in.get(f"/datasets?{query}").status_code == 422


def test_a_dataset_shows_its_files_with_roles_and_digests(logged_in: TestClient, push: Push) -> None:
    dataset = push("notes", 2, license="CC0-1.0", description="field notes")
    page = logged_in.get(f"/datasets/{dataset.id}").text
    seen = text_of(page)
    assert dataset.digest in page
    assert "4 files: 2 corpus, 1 eval, 1 external." in seen
    for file in dataset.files:
        assert f'title="{file.digest}"' in page
        assert f"{file.path} {file.role}" in seen
    assert "drafts/old.txt : recipe excluded" in seen
    assert "picochat-client data preview notes@1" in seen
    assert "external: arc: type: dataset name: notes version: 1" in seen


def test_of_many_files_the_first_are_listed(
    logged_in: TestClient, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_view, "SHOWN_FILES", 3)
    seen = text_of(logged_in.get(f"/datasets/{push('notes', 5).id}").text)
    assert "7 files: 5 corpus" in seen
    assert "The first 3 are listed" in seen
    assert "part-2.txt" in seen and "part-3.txt" not in seen


def test_a_dataset_names_the_runs_that_read_this_version(
    app: FastAPI, logged_in: TestClient, project_id: str, push: Push
) -> None:
    dataset, later = push("notes"), push("notes", 2)
    reference = {"type": "dataset", "name": "notes", "version": 1}
    uses = [{"sources": [reference]}, {"eval": reference}, {"external": {"arc": reference}}]
    runs = [seed.queued(app, project_id, f"run-{number}") for number in range(4)]
    for run, use in zip(runs, uses, strict=False):
        read(app, run, use)
    page = logged_in.get(f"/datasets/{dataset.id}").text
    assert sorted(re.findall(r'href="/runs/(run_\w+)"', page)) == sorted(runs[:3])
    assert "Among the newest 4 runs." in page
    assert "None of the newest 4 runs." in logged_in.get(f"/datasets/{later.id}").text


@pytest.mark.parametrize(
    "spec", [{}, {"dataset": None}, {"dataset": {"sources": ["x", None], "external": 3}}]
)
def test_a_run_of_an_odd_spec_is_passed_over(
    app: FastAPI, logged_in: TestClient, project_id: str, push: Push, spec: dict[str, object]
) -> None:
    run_id = seed.queued(app, project_id, "odd")
    with transaction(app.state.sessions) as session:
        session.get_one(Run, run_id).spec = spec
    assert logged_in.get(f"/datasets/{push('notes').id}").status_code == 200


def test_texts_of_a_dataset_are_escaped(logged_in: TestClient, push: Push) -> None:
    dataset = push("notes", license=ATTACK, description=ATTACK)
    for path in ("/datasets", f"/datasets/{dataset.id}"):
        page = logged_in.get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize("path", ["/datasets/ds_x", "/datasets/nothing", "/datasets/%3Cscript%3E"])
def test_an_unknown_dataset_is_an_error_page(logged_in: TestClient, path: str) -> None:
    answer = logged_in.get(path)
    assert answer.status_code == 404
    assert "There is no such page" in answer.text


def test_another_projects_datasets_are_not_there(app: FastAPI, push: Push) -> None:
    dataset = push("notes")
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
    stranger = log_in(app, new_key(app, other, "admin"))
    assert dataset.id not in stranger.get("/datasets").text
    assert stranger.get(f"/datasets/{dataset.id}").status_code == 404


def test_the_sections_are_named_on_every_page(logged_in: TestClient, push: Push) -> None:
    for path, section in (
        ("/", "Runs"),
        ("/datasets", "Datasets"),
        (f"/datasets/{push('notes').id}", "Datasets"),
    ):
        page = logged_in.get(path).text
        assert re.findall(r'aria-current="true">(\w+)</a>', page) == [section]
        assert 'href="/datasets"' in page
