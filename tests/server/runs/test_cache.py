"""A finished stage with the same fingerprint is reused: changing an SFT setting never repeats base pretraining."""

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.apps import client_with, new_key, new_project
from support.hand import SMOKE, UNGATED, Hand, sha256, show, states, submit


def _finished(client: TestClient, worker: TestClient, spec: dict[str, Any]) -> dict[str, Any]:
    run = submit(client, spec)
    Hand(worker).run_all()
    return show(client, run)


def test_equal_run_is_finished_at_once_from_the_cache(client: TestClient, worker: TestClient) -> None:
    first = _finished(client, worker, UNGATED)
    second = submit(client, {**UNGATED, "name": "again"})
    assert second["state"] == "succeeded"
    assert set(states(second).values()) == {"cached"}
    assert [s["cached_from"] for s in second["stages"]] == [s["id"] for s in first["stages"]]
    first_files, second_files = (
        client.get(f"/api/v1/runs/{run['id']}/artifacts").json()["data"] for run in (first, second)
    )
    assert [(f["path"], f["sha256"]) for f in first_files] == [(f["path"], f["sha256"]) for f in second_files]


def test_only_what_a_change_reaches_runs_again(client: TestClient, worker: TestClient) -> None:
    first = submit(client, {**SMOKE, "until": "sft"})
    hand = Hand(worker)
    hand.run_until("tokenizer").succeed({"tokenizer.json": b"t", "tokenizer_config.json": b"tc"})
    hand.take().succeed({"base/best_checkpoint/model.safetensors": b"w"})
    hand.take().succeed()
    assert show(client, first)["state"] == "succeeded"
    second = submit(client, {**SMOKE, "until": "sft", "sft": {"max_steps": 31}})
    # Preflight judges the whole plan, so it looks again; what it reads did not change.
    assert states(second) == {
        "dataset": "cached",
        "honesty": "cached",
        "preflight": "queued",
        "tokenizer": "pending",
        "base": "pending",
        "sft": "pending",
    }
    hand.take().succeed()
    assert list(states(show(client, second)).values())[2:] == ["succeeded", "cached", "cached", "queued"]
    claim = hand.take().claim
    assert claim["job"]["inputs"]["base/best_checkpoint/model.safetensors"] == sha256(b"w")


def test_other_outputs_of_a_stage_before_break_the_reuse(client: TestClient, worker: TestClient) -> None:
    hand = Hand(worker)
    submit(client)
    hand.run_all()
    submit(client, {**UNGATED, "dataset": {"seed": 43}})
    hand.take().succeed({"corpus_manifest.json": b'{"shards": [2]}'})
    assert hand.run_all() == ["honesty", "preflight", "tokenizer"]


def test_equal_corpus_from_another_config_is_reused_further_down(
    client: TestClient, worker: TestClient
) -> None:
    hand = Hand(worker)
    submit(client)
    hand.run_all()
    run = submit(client, {**UNGATED, "dataset": {"seed": 43}})
    hand.take().succeed()
    found = states(show(client, run))
    assert (found["dataset"], found["honesty"], found["preflight"]) == ("succeeded", "cached", "queued")
    hand.take().succeed()
    assert states(show(client, run))["tokenizer"] == "cached"


def test_stage_whose_bytes_are_gone_runs_again(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    submit(client)
    Hand(worker).take().succeed({"corpus.txt": b"soon gone"})
    app.state.store.path(sha256(b"soon gone")).unlink()
    assert states(submit(client))["dataset"] == "queued"


def test_nothing_is_reused_across_projects(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    _finished(client, worker, UNGATED)
    stranger = client_with(app, new_key(app, new_project(app, "other"), "admin"))
    assert states(submit(stranger))["dataset"] == "queued"


def test_failed_stage_is_never_reused(client: TestClient, worker: TestClient) -> None:
    submit(client)
    Hand(worker).take().finish("failed", 1)
    assert states(submit(client))["dataset"] == "queued"


def test_cached_run_shows_the_curves_of_the_stage_that_ran(client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.events({"type": "metric", "data": {"step": 1, "values": {"loss": 3.0}}})
    hand.succeed(rows=4.0)
    for _ in range(2):  # the second reuses a reused stage
        again = submit(client, {**UNGATED, "until": "dataset"})
        assert again["stages"][0]["metrics"] == {"loss": 3.0, "rows": 4.0}
        (series,) = client.get(f"/api/v1/runs/{again['id']}/metrics").json()["series"]
        assert series["values"] == [3.0]


def test_gate_is_decided_again_for_a_reused_gate_stage(client: TestClient, worker: TestClient) -> None:
    first = _finished(client, worker, SMOKE)
    second = submit(client, SMOKE)
    assert (second["state"], second["verdict"]) == ("succeeded", "blocked")
    reports = [client.get(f"/api/v1/runs/{run['id']}/gate").json() for run in (first, second)]
    assert reports[0]["id"] != reports[1]["id"]
    assert reports[0]["report"] == reports[1]["report"]
