"""A run spec that names datasets: what its stages get, and what its own text keeps."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import transaction
from picochat_server.models import Stage
from sqlalchemy import select
from support.hand import UNGATED, Hand, problem, push, sha256, show, states, submit, uploaded_file


@pytest.fixture
def pack(client: TestClient) -> dict[str, Any]:
    files = [
        uploaded_file(client, "corpus", "a.txt", b"a", label="letters", weight=2.0),
        uploaded_file(client, "corpus", "b.jsonl", b"b", group="docs", text_field="body"),
        uploaded_file(client, "chat", "chat.jsonl", b"chat"),
        uploaded_file(client, "eval", "eval.jsonl", b"eval"),
        uploaded_file(client, "preferences", "pairs.jsonl", b"pairs"),
        uploaded_file(client, "external", "arc.jsonl", b"arc", label="arc"),
        uploaded_file(client, "external", "mmlu.csv", b"mmlu", label="mmlu"),
    ]
    left_out = [{"type": "left_out", "path": "c.bin", "reason": "recipe_excluded"}]
    found: dict[str, Any] = push(client, "pack", *files, license="MIT", left_out=left_out).json()
    return found


def spec_of(**dataset: Any) -> dict[str, Any]:
    return {**UNGATED, "until": "dataset", "dataset": dataset}


def ref(name: str = "pack", **options: Any) -> dict[str, Any]:
    return {"type": "dataset", "name": name, **options}


def dataset_config(app: FastAPI, run: dict[str, Any]) -> dict[str, Any]:
    with transaction(app.state.sessions) as session:
        return session.scalars(
            select(Stage.config).where(Stage.run_id == run["id"], Stage.name == "dataset")
        ).one()


def test_a_dataset_among_the_sources_brings_its_corpus_files(
    app: FastAPI, client: TestClient, pack: dict[str, Any]
) -> None:
    config = dataset_config(app, submit(client, spec_of(sources=[{"type": "pydoc"}, ref(weight=1.5)])))
    pydoc, a, b, left_out = config["sources"]
    assert pydoc["type"] == "pydoc"
    assert (a["digest"], a["label"], a["license"], a["weight"]) == (sha256(b"a"), "letters", "MIT", 3.0)
    assert (b["name"], b["label"], b["text_field"]) == ("b.jsonl", "pack", "body")
    assert b["group"] == f"{pack['digest'][:12]}/docs"
    assert left_out["path"] == "c.bin"


def test_each_row_file_is_found_by_its_role(app: FastAPI, client: TestClient, pack: dict[str, Any]) -> None:
    spec = spec_of(sources=[ref()], chat=ref(), eval=ref(), preferences=ref(), external={"mmlu": ref()})
    config = dataset_config(app, submit(client, spec))
    assert [config[name]["digest"] for name in ("chat", "eval", "preferences")] == [
        sha256(content) for content in (b"chat", b"eval", b"pairs")
    ]
    assert config["external"]["mmlu"]["name"] == "mmlu.csv"


def test_the_worker_is_told_every_file(client: TestClient, worker: TestClient, pack: dict[str, Any]) -> None:
    submit(
        client, spec_of(sources=[ref()], chat=ref(), eval=ref(), preferences=ref(), external={"arc": ref()})
    )
    sources = Hand(worker).take().claim["sources"]
    assert sources == [sha256(content) for content in (b"a", b"b", b"chat", b"eval", b"pairs", b"arc")]


def test_what_the_spec_says_goes_before_what_the_push_said(
    app: FastAPI, client: TestClient, pack: dict[str, Any]
) -> None:
    options = {"label": "mine", "license": "CC0-1.0", "text_field": "text", "max_documents": 5}
    config = dataset_config(app, submit(client, spec_of(sources=[ref(**options)])))
    for source in config["sources"][:2]:
        assert {key: source[key] for key in options} == options
    assert config["sources"][0]["group"] == config["sources"][1]["group"], "the limit is for both together"


def test_the_spec_keeps_the_name_with_the_version_that_it_stood_for(
    client: TestClient, pack: dict[str, Any]
) -> None:
    push(client, "pack", uploaded_file(client, "corpus", "a.txt", b"newer"))
    run = submit(client, spec_of(sources=[ref()], chat=ref(version=1)))
    assert run["spec"]["dataset"]["sources"][0]["version"] == 2
    assert run["spec"]["dataset"]["chat"] == {**run["spec"]["dataset"]["chat"], "name": "pack", "version": 1}


def test_a_pinned_version_reuses_what_a_newer_push_does_not_touch(
    client: TestClient, worker: TestClient, pack: dict[str, Any]
) -> None:
    first = submit(client, spec_of(sources=[ref()]))
    Hand(worker).run_all()
    push(client, "pack", uploaded_file(client, "corpus", "a.txt", b"newer"))
    assert states(submit(client, spec_of(sources=[ref(version=1)])))["dataset"] == "cached"
    assert states(submit(client, spec_of(sources=[ref()])))["dataset"] == "queued"
    assert show(client, first)["state"] == "succeeded"


def test_one_idempotency_key_is_one_run_though_the_name_moved_on(
    client: TestClient, pack: dict[str, Any]
) -> None:
    first = submit(client, spec_of(sources=[ref()]), **{"Idempotency-Key": "k"})
    push(client, "pack", uploaded_file(client, "corpus", "a.txt", b"newer"))
    assert submit(client, spec_of(sources=[ref()]), **{"Idempotency-Key": "k"})["id"] == first["id"]


@pytest.mark.parametrize(
    ("dataset", "hint"),
    [
        ({"sources": [ref("none")]}, "no dataset 'none'; `picochat-client data list`"),
        ({"sources": [ref(version=9)]}, "no dataset 'pack' version 9"),
        ({"sources": [ref("rows")]}, "has no corpus file; it has chat"),
        ({"sources": [ref()], "eval": ref("rows")}, "has no eval file"),
        ({"sources": [ref()], "external": {"gsm8k": ref()}}, "no external 'gsm8k' file"),
    ],
)
def test_what_a_dataset_cannot_give_is_said(
    client: TestClient, pack: dict[str, Any], dataset: dict[str, Any], hint: str
) -> None:
    push(client, "rows", uploaded_file(client, "chat", "chat.jsonl", b"chat"))
    answer = client.post("/api/v1/runs", json=spec_of(**dataset))
    assert hint in problem(answer, 422, "dataset_unknown")["detail"]
