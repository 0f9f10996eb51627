"""The end of an attempt: what is stored, what is tried again, and how a failure is told."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.stages import StageName
from picochat_contract.states import RETRIED_CAUSES, Cause
from picochat_server.leases import finish
from sqlalchemy import event
from support.clock import expire, reap_now
from support.hand import SMOKE, UNGATED, Hand, problem, show, states, submit


def test_finish_links_outputs_and_queues_the_next_stage(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    assert Hand(worker).take().succeed({"corpus.txt": b"text"}, num_documents=3).status_code == 204
    shown = show(client, run)
    assert states(shown)["dataset"] == "succeeded"
    assert states(shown)["honesty"] == "queued"
    assert shown["metrics"] == {"num_documents": 3}
    files = client.get(f"/api/v1/runs/{run['id']}/artifacts").json()["data"]
    assert ("corpus.txt", "dataset") in [(file["path"], file["stage"]) for file in files]


def test_finish_is_idempotent(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    assert hand.succeed().status_code == 204
    before = show(client, run)
    assert hand.finish(manifest=hand.manifest({})).status_code == 204
    assert show(client, run) == before


def test_finish_with_another_outcome_is_refused(client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.succeed()
    assert "already ended" in problem(hand.finish("failed", 1), 409, "lease_lost")["detail"]


@pytest.mark.parametrize("breaks", ["no manifest", "other stage", "bytes not stored"])
def test_success_without_a_whole_manifest_is_refused(
    client: TestClient, worker: TestClient, breaks: str
) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    manifest = hand.manifest({"corpus.txt": b"never uploaded"} if breaks == "bytes not stored" else {})
    if breaks == "other stage":
        manifest["stage"] = "base"
    code = "not_found" if breaks == "bytes not stored" else "invalid_request"
    problem(hand.finish(manifest=None if breaks == "no manifest" else manifest), 422, code)
    assert states(show(client, run))["dataset"] == "running"


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.CANCELLED}))
def test_retry_depends_on_the_cause(client: TestClient, worker: TestClient, cause: Cause) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    assert hand.finish("failed", 1, cause=cause.value, message="it broke").status_code == 204
    expected = "queued" if cause in RETRIED_CAUSES else "failed"
    assert states(show(client, run))["dataset"] == expected


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [(2, "bad_input"), (1, "crash"), (-9, "signal"), (75, "interrupted"), (None, "crash")],
)
def test_cause_follows_the_exit_code_where_the_worker_gives_none(
    client: TestClient, worker: TestClient, exit_code: int | None, cause: str
) -> None:
    run = submit(client)
    Hand(worker).take().finish("failed", exit_code)
    assert show(client, run)["stages"][0]["attempts"][0]["cause"] == cause


def test_attempts_run_out(client: TestClient, worker: TestClient) -> None:
    run = submit(client, {**UNGATED, "max_attempts": 2})
    for _ in range(2):
        Hand(worker).take().finish("failed", -9)
    shown = show(client, run)
    assert shown["state"] == "failed"
    assert "signal, attempt 2 of 2" in shown["message"]
    assert "smaller device_batch_size" in shown["message"]


def test_failure_names_stage_cause_and_fix_and_skips_the_rest(client: TestClient, worker: TestClient) -> None:
    run = submit(client, SMOKE)
    Hand(worker).take().finish("failed", 2, code="file_unreadable", message="corpus.txt line 2 is not UTF-8")
    shown = show(client, run)
    assert shown["state"] == "failed"
    assert shown["message"] == (
        "stage dataset failed (bad_input, attempt 1 of 3): file_unreadable: corpus.txt line 2 is not UTF-8; "
        "correct the data or the settings that it names and submit again"
    )
    assert states(shown) == {name.value: "skipped" for name in StageName} | {"dataset": "failed"}


def test_failure_asks_a_running_neighbour_to_stop_and_ends_the_run_after_it(
    client: TestClient, worker: TestClient
) -> None:
    run = submit(client, SMOKE)
    Hand(worker).run_until("sft").succeed()
    fit, evaluation = Hand(worker, "a").take(), Hand(worker, "b").take()
    fit.finish("failed", 1)
    assert show(client, run)["state"] == "running"
    assert evaluation.heartbeat().json()["desired_state"] == "cancelled"
    evaluation.finish("cancelled", 75)
    shown = show(client, run)
    assert (shown["state"], states(shown)["fit"], states(shown)["eval"]) == ("failed", "failed", "cancelled")


def test_worker_alone_cannot_cancel(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    Hand(worker).take().finish("cancelled", 75)
    shown = show(client, run)
    assert states(shown)["dataset"] == "queued"
    assert shown["stages"][0]["attempts"][0]["state"] == "interrupted"


def test_lost_attempts_run_out_and_fail_the_run(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    run = submit(client, {**UNGATED, "max_attempts": 2})
    for expected in ("queued", "failed"):
        hand = Hand(worker).take()
        expire(app, hand.claim["stage"], 16)
        assert reap_now(app) == 1
        assert states(show(client, run))["dataset"] == expected
    shown = show(client, run)
    assert shown["state"] == "failed"
    assert shown["stages"][0]["attempts"][-1]["cause"] == "lost"


def test_interruption_before_the_start_does_not_count(client: TestClient, worker: TestClient) -> None:
    """A worker that is drained while it lays inputs says so by an exit code of none."""
    run = submit(client, {**UNGATED, "max_attempts": 1})
    for _ in range(3):
        Hand(worker).take().finish("interrupted", None)
        assert states(show(client, run))["dataset"] == "queued"
    Hand(worker).take().finish("interrupted", 75)
    assert show(client, run)["state"] == "failed"


def test_interruptions_before_the_start_end_some_day(
    client: TestClient, worker: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "MAX_GIVEN_BACK", 2)
    run = submit(client, {**UNGATED, "max_attempts": 1})
    for expected in ("queued", "queued", "failed"):
        Hand(worker).take().finish("interrupted", None)
        assert states(show(client, run))["dataset"] == expected


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "interrupted"])
def test_rows_are_locked_in_one_order(
    app: FastAPI, client: TestClient, worker: TestClient, outcome: str
) -> None:
    """Stage before worker, as a heartbeat does: the other way round Postgres meets a deadlock."""
    submit(client)
    hand = Hand(worker).take()
    changed: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("UPDATE"):
            changed.append(statement.split()[1])

    engine = app.state.engines[1]
    event.listen(engine, "before_cursor_execute", note)
    answer = hand.succeed({}) if outcome == "succeeded" else hand.finish(outcome, -9)
    event.remove(engine, "before_cursor_execute", note)
    assert answer.status_code == 204
    assert "stage" in changed
    assert [table for table in changed if table == "worker"] == changed[-1:]
