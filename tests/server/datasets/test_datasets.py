"""Registering datasets: versions, sameness, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import transaction
from picochat_server.models import Audit
from sqlalchemy import select
from support.apps import client_with, new_key, new_project
from support.hand import problem, push, sha256, uploaded_file

DATASETS = "/api/v1/datasets"


def test_first_push_is_version_one_with_sizes_kind_and_digest(app: FastAPI, client: TestClient) -> None:
    answer = push(client, "notes", uploaded_file(client, "corpus", "a.txt", b"some text", license="MIT"))
    assert answer.status_code == 201
    found = answer.json()
    assert (found["version"], found["kind"], found["num_files"], found["size_bytes"]) == (1, "corpus", 1, 9)
    assert found["files"][0]["digest"] == sha256(b"some text")
    assert client.get(f"{DATASETS}/{found['id']}").json() == found
    with transaction(app.state.sessions) as session:
        row = session.scalars(select(Audit).where(Audit.action == "dataset.create")).one()
        assert (row.target, row.data["version"]) == (found["id"], 1)


def test_same_content_again_is_the_same_version_and_other_content_the_next(client: TestClient) -> None:
    file = uploaded_file(client, "corpus", "a.txt", b"one")
    first, again = push(client, "notes", file), push(client, "notes", file)
    assert (again.status_code, again.json()) == (200, first.json())
    other = push(client, "notes", uploaded_file(client, "corpus", "a.txt", b"two"))
    assert (other.status_code, other.json()["version"]) == (201, 2)
    back = push(client, "notes", file)  # what was pushed last is what a name without a version means
    assert (back.json()["version"], back.json()["digest"]) == (3, first.json()["digest"])


@pytest.mark.parametrize("change", [{"weight": 2.0}, {"license": "MIT"}, {"label": "x"}, {"path": "b.txt"}])
def test_what_says_how_a_file_is_read_is_content(client: TestClient, change: dict[str, Any]) -> None:
    file = uploaded_file(client, "corpus", "a.txt", b"one")
    push(client, "notes", file)
    assert push(client, "notes", {**file, **change}).json()["version"] == 2


def test_several_roles_make_a_pack(client: TestClient) -> None:
    files = [
        uploaded_file(client, role, f"{role}.jsonl", role.encode()) for role in ("corpus", "chat", "eval")
    ]
    assert push(client, "pack", *files).json()["kind"] == "pack"


def test_left_out_files_are_kept_with_the_dataset(client: TestClient) -> None:
    left_out = [{"type": "left_out", "path": "b.bin", "reason": "recipe_excluded"}]
    found = push(client, "notes", uploaded_file(client, "corpus", "a.txt", b"one"), left_out=left_out).json()
    assert [item["path"] for item in found["left_out"]] == ["b.bin"]


def test_files_that_were_not_uploaded_are_refused_by_name(client: TestClient) -> None:
    files = [{"role": "corpus", "path": f"{n}.txt", "digest": sha256(b"%d" % n)} for n in range(7)]
    detail = problem(push(client, "notes", *files), 422, "source_not_uploaded")["detail"]
    assert "0.txt" in detail
    assert "and 2 more" in detail


def test_another_projects_files_cannot_be_registered(app: FastAPI, client: TestClient) -> None:
    stranger = client_with(app, new_key(app, new_project(app, "other"), "admin"))
    file = uploaded_file(stranger, "corpus", "a.txt", b"theirs")
    problem(push(client, "notes", file), 422, "source_not_uploaded")


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ([], "at least 1"),
        ([{"role": "chat", "path": "a.jsonl"}, {"role": "chat", "path": "b.jsonl"}], "at most one chat file"),
        ([{"role": "external", "path": "arc.jsonl"}], "label"),
        ([{"role": "corpus", "path": "../a.txt"}], "pattern"),
        ([{"role": "weights", "path": "a.txt"}], "corpus"),
    ],
)
def test_a_file_list_that_makes_no_sense_is_refused(
    client: TestClient, files: list[dict[str, str]], hint: str
) -> None:
    answer = push(client, "notes", *({"digest": "0" * 64, **file} for file in files))
    assert hint in problem(answer, 422, "invalid_request")["detail"]


def test_lists_are_newest_first_by_pages_and_by_name(client: TestClient) -> None:
    for name, text in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        push(client, name, uploaded_file(client, "corpus", "a.txt", text))
    page = client.get(DATASETS, params={"limit": 2}).json()
    assert [(row["name"], row["version"]) for row in page["data"]] == [("a", 2), ("b", 1)]
    rest = client.get(DATASETS, params={"after": page["next"]}).json()
    assert [(row["name"], row["version"]) for row in rest["data"]] == [("a", 1)]
    named = client.get(DATASETS, params={"name": "b"}).json()["data"]
    assert [row["name"] for row in named] == ["b"]
    assert "files" not in named[0]


def test_a_name_stands_for_its_newest_version(client: TestClient) -> None:
    for text in (b"1", b"2"):
        push(client, "a", uploaded_file(client, "corpus", "a.txt", text))
    assert client.get(f"{DATASETS}/by-name/a").json()["version"] == 2
    assert client.get(f"{DATASETS}/by-name/a", params={"version": 1}).json()["version"] == 1
    problem(client.get(f"{DATASETS}/by-name/a", params={"version": 3}), 404, "not_found")


@pytest.mark.parametrize("address", ["ds_x", "by-name/none", "by-name/%00", "by-name/A B"])
def test_unknown_datasets_are_not_found(client: TestClient, address: str) -> None:
    problem(client.get(f"{DATASETS}/{address}"), 404, "not_found")


def test_another_project_sees_nothing(app: FastAPI, client: TestClient) -> None:
    found = push(client, "a", uploaded_file(client, "corpus", "a.txt", b"1")).json()
    stranger = client_with(app, new_key(app, new_project(app, "other"), "admin"))
    assert stranger.get(DATASETS).json()["data"] == []
    for address in (found["id"], "by-name/a"):
        problem(stranger.get(f"{DATASETS}/{address}"), 404, "not_found")


def test_parallel_pushes_of_one_content_make_one_version(client: TestClient) -> None:
    files = [uploaded_file(client, "corpus", "a.txt", text) for text in (b"1", b"2")]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: push(client, "a", files[n % 2]).status_code, range(8)))
    assert set(answers) <= {200, 201}
    versions = [row["version"] for row in client.get(DATASETS).json()["data"]]
    assert versions == list(range(len(versions), 0, -1))
    assert answers.count(201) == len(versions)
