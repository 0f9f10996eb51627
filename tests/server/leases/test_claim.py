"""Claims: one attempt for any number of hints, oldest first, and a whole run by hand."""

from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.stages import StageName
from picochat_server.db import transaction
from picochat_server.models import Attempt
from sqlalchemy import func, select
from support.apps import client_with, new_key, new_project
from support.hand import SMOKE, Hand, show, states, submit


def test_fifty_parallel_claims_of_one_stage_make_one_attempt(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    stage = submit(client)["stages"][0]["id"]
    with ThreadPoolExecutor(25) as pool:
        codes = list(pool.map(lambda n: Hand(worker, f"w{n % 5}").ask(stage).status_code, range(50)))
    assert sorted(codes) == [200] + [204] * 49
    with transaction(app.state.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Attempt)) == 1


def test_nothing_to_do_is_204_and_the_worker_is_seen(client: TestClient, worker: TestClient) -> None:
    assert Hand(worker, "idle").ask().status_code == 204
    seen = client.get("/api/v1/workers").json()["data"]
    assert [(row["name"], row["attempt"]) for row in seen] == [("idle", None)]


def test_oldest_run_comes_first_and_a_hint_picks_its_own_stage(
    client: TestClient, worker: TestClient
) -> None:
    first, second = submit(client), submit(client)
    assert Hand(worker).take(second["stages"][0]["id"]).claim["run"] == second["id"]
    assert Hand(worker).take().claim["run"] == first["id"]


def test_claim_says_all_that_a_worker_needs(client: TestClient, worker: TestClient) -> None:
    run = submit(client, {"scale": "smoke", "until": "tokenizer", "resources": {"num_threads": 1}})
    claim = Hand(worker).run_until("tokenizer").claim
    assert claim["run"] == run["id"]
    assert claim["epoch"] == 1
    assert claim["job"]["stage"] == "tokenizer"
    assert claim["job"]["config"]["vocab_size"] == run["spec"]["tokenizer"]["vocab_size"]
    assert claim["job"]["resources"]["num_threads"] == 1
    assert claim["job"]["attempt_id"] == claim["attempt"]
    assert list(claim["job"]["inputs"]) == ["corpus_manifest.json"]  # not the rows: a tokenizer reads none
    assert [(file["path"], file["stage"]) for file in claim["inputs"]] == [
        ("corpus_manifest.json", "dataset")
    ]
    assert claim["resume"] is None


def test_whole_run_goes_through_all_stages_and_succeeds(client: TestClient, worker: TestClient) -> None:
    run = submit(client, SMOKE)
    order = Hand(worker).run_all()
    assert order == [name.value for name in StageName]
    ended = show(client, run)
    assert ended["state"] == "succeeded"
    assert ended["verdict"] == "blocked"  # these outputs hold no evidence, and a gate fails closed
    assert set(states(ended).values()) == {"succeeded"}
    assert ended["finished_at"] >= ended["started_at"]


def test_claim_of_another_projects_stage_gives_nothing(app: FastAPI, client: TestClient) -> None:
    stage = submit(client)["stages"][0]["id"]
    stranger = client_with(app, new_key(app, new_project(app, "other"), "worker"))
    assert Hand(stranger).ask(stage).status_code == 204
