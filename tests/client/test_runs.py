import json

import pytest
from picochat_client import Client, Conflict, NotFound
from picochat_contract.errors import Code, SpecError
from picochat_contract.gate import Verdict
from picochat_contract.spec import parse_mapping
from picochat_contract.states import RunState

from .fake_server import FakeServer
from .scripted import URL, Script


def test_the_same_key_gives_the_same_run(client: Client) -> None:
    first = client.runs.submit({"scale": "smoke"}, idempotency_key="k")
    assert client.runs.submit({"scale": "smoke"}, idempotency_key="k").id == first.id
    assert client.runs.submit({"scale": "smoke"}).id != first.id


def test_a_run_spec_object_is_sent_whole(client: Client, server: FakeServer) -> None:
    spec = parse_mapping({"scale": "smoke", "name": "typed"})
    client.runs.submit(spec)
    assert parse_mapping(json.loads(server.requests[0].content)) == spec


def test_list_goes_through_all_pages_newest_first(client: Client, server: FakeServer) -> None:
    for _ in range(5):
        server.add_run()
    assert [run.id for run in client.runs.list()] == ["run_5", "run_4", "run_3", "run_2", "run_1"]


def test_list_asks_for_no_page_that_is_not_needed(client: Client, server: FakeServer) -> None:
    for _ in range(5):
        server.add_run()
    next(client.runs.list())
    assert len(server.requests) == 1


def test_list_filters_by_state(client: Client, server: FakeServer) -> None:
    server.add_run().cancelled = True
    server.add_run()
    assert [run.id for run in client.runs.list(state=RunState.CANCELLED)] == ["run_1"]


def test_wait_hands_on_every_event_and_returns_the_final_run(client: Client, server: FakeServer) -> None:
    run, seen = server.add_run(), list[int]()
    final = client.runs.wait(run.id, lambda event: seen.append(event.seq))
    assert final.state is RunState.SUCCEEDED
    assert seen == [event.seq for event in run.events]


def test_cancel_and_metrics_and_gate(client: Client, server: FakeServer) -> None:
    run = server.add_run()
    with pytest.raises(NotFound) as caught:
        client.runs.gate(run.id)
    assert caught.value.code == Code.GATE_NOT_READY
    assert client.runs.metrics(run.id).series[0].values == [2.0]
    client.runs.wait(run.id)
    assert client.runs.gate(run.id).report.verdict is Verdict.APPROVED
    assert client.runs.cancel(server.add_run().id).state is RunState.CANCELLED


def test_release_of_a_blocked_run_is_a_conflict(client: Client, server: FakeServer) -> None:
    run = server.add_run(script=Script(verdict=Verdict.BLOCKED))
    with pytest.raises(Conflict) as caught:
        client.releases.create("tiny", run.id)
    assert caught.value.code == Code.GATE_NOT_PASSED
    assert client.releases.create("tiny", server.add_run().id).version == 1


def test_keys_are_created_listed_and_revoked(client: Client) -> None:
    made = client.keys.create("ci", ["runs:read"], expires_in_days=7)
    assert made.secret == "pk_new"
    assert [key.secret for key in client.keys.list()] == [None]
    client.keys.revoke(made.id)
    assert next(client.keys.list()).revoked_at is not None


def test_values_that_no_server_takes_are_refused_here(client: Client, server: FakeServer) -> None:
    with pytest.raises(SpecError, match="scopes"):
        client.keys.create("ci", ["everything"])
    with pytest.raises(SpecError, match="name"):
        client.releases.create("No Spaces", "run_1")
    assert server.requests == []


def test_workers_and_page_address(client: Client) -> None:
    assert [worker.name for worker in client.workers.list()] == ["w1"]
    assert client.run_page("run_1") == f"{URL}/runs/run_1"
