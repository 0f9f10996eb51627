import httpx
import pytest
from picochat_client import (
    ApiError,
    Client,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerFault,
    ServerUnreachable,
    TooLarge,
    Unauthenticated,
    UnexpectedAnswer,
)

from .conftest import FakeClock
from .fake_server import FakeServer
from .scripted import KEY, URL, answer, problem

UNAVAILABLE = httpx.Response(503)


@pytest.mark.parametrize(
    "wrong", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, UNAVAILABLE]
)
def test_get_is_repeated_after_a_passing_failure(
    client: Client, server: FakeServer, clock: FakeClock, wrong: httpx.Response | type[httpx.TransportError]
) -> None:
    run = server.add_run()
    server.fail(wrong, wrong, wrong)
    assert client.runs.get(run.id).id == run.id
    assert len(server.requests) == 4
    assert len(clock.naps) == 3


def test_pauses_grow_and_stay_under_five_seconds(
    server: FakeServer, client: Client, clock: FakeClock
) -> None:
    server.fail(*[httpx.ConnectError] * 100)
    with pytest.raises(ServerUnreachable, match="no answer from"):
        client.runs.get("run_1")
    assert clock.naps[0] <= 0.2
    assert max(clock.naps) <= 5
    assert clock.now == pytest.approx(60)


def test_waits_as_long_as_the_server_asks(server: FakeServer, client: Client, clock: FakeClock) -> None:
    run = server.add_run()
    server.fail(httpx.Response(429, headers={"Retry-After": "7"}))
    client.runs.get(run.id)
    assert clock.naps == [7.0]


def test_does_not_wait_for_a_retry_after_beyond_its_patience(
    server: FakeServer, client: Client, clock: FakeClock
) -> None:
    server.fail(httpx.Response(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RateLimited):
        client.runs.get("run_1")
    assert clock.naps == []


def test_reads_retry_after_as_a_date(server: FakeServer, client: Client, clock: FakeClock) -> None:
    run = server.add_run()
    server.fail(httpx.Response(503, headers={"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}))
    client.runs.get(run.id)
    assert clock.naps == [0.0]


def test_submit_is_repeated_with_one_key_and_makes_one_run(server: FakeServer, client: Client) -> None:
    server.fail(httpx.ReadError, UNAVAILABLE, problem(409, "idempotency_in_flight", "still at it"))
    client.runs.submit({"scale": "smoke"})
    keys = {request.headers["Idempotency-Key"] for request in server.calls("POST", "/runs")}
    assert len(server.calls("POST", "/runs")) == 4
    assert len(keys) == 1
    assert len(server.runs) == 1


def test_post_without_a_key_is_not_repeated_once_it_may_have_arrived(
    server: FakeServer, client: Client
) -> None:
    server.fail(httpx.ReadError)
    with pytest.raises(ServerUnreachable):
        client.keys.create("ci", ["runs:read"])
    assert len(server.requests) == 1


def test_post_without_a_key_is_repeated_when_it_never_left(server: FakeServer, client: Client) -> None:
    server.fail(httpx.ConnectError)
    assert client.keys.create("ci", ["runs:read"]).secret == "pk_new"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, TooLarge),
        (418, InvalidRequest),
        (422, InvalidRequest),
        (500, ServerFault),
    ],
)
def test_problem_json_becomes_the_exception_of_its_status(
    server: FakeServer, client: Client, status: int, kind: type[ApiError]
) -> None:
    server.fail(problem(status, "some_code", "what to do", param="x", request_id="req_1"))
    with pytest.raises(kind) as caught:
        client.runs.get("run_1")
    error = caught.value
    assert (error.status, error.code, error.detail) == (status, "some_code", "what to do")
    assert (error.param, error.request_id) == ("x", "req_1")
    assert len(server.requests) == 1


def test_an_error_without_problem_json_shows_what_came(server: FakeServer, client: Client) -> None:
    server.fail(httpx.Response(500, text="<h1>Proxy\nbroke</h1>"))
    with pytest.raises(ServerFault, match="500 Internal Server Error: <h1>Proxy broke</h1>"):
        client.runs.get("run_1")


def test_a_redirect_names_the_address_to_use(server: FakeServer, client: Client) -> None:
    server.fail(httpx.Response(301, headers={"Location": "https://other/"}))
    with pytest.raises(ApiError, match="give that server as --url"):
        client.runs.get("run_1")


def test_another_service_on_the_port_is_named_as_such(server: FakeServer, client: Client) -> None:
    server.fail(httpx.Response(200, text="<html>a router's page</html>"))
    with pytest.raises(UnexpectedAnswer, match="did not answer as a picochat server"):
        client.runs.get("run_1")


def test_keys_that_a_newer_server_adds_are_let_through(server: FakeServer, client: Client) -> None:
    run = server.add_run()
    newer = {**run.out().model_dump(mode="json"), "colour": "blue"}
    newer["stages"][0]["colour"] = "red"
    server.fail(answer(newer))
    assert client.runs.get(run.id).id == run.id


def test_sends_the_key_as_a_bearer_and_no_other_way(server: FakeServer, client: Client) -> None:
    client.runs.get(server.add_run().id)
    [request] = server.requests
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(request.url)


def test_tells_once_that_it_is_trying_again(server: FakeServer, clock: FakeClock) -> None:
    notices: list[str] = []
    server.fail(*[httpx.ConnectError] * 5)
    run = server.add_run()
    transport = httpx.MockTransport(server.handle)
    with Client(
        URL, KEY, transport=transport, clock=clock, notice=lambda why, left: notices.append(why)
    ) as c:
        c.runs.get(run.id)
    assert len(notices) == 1


def test_a_run_id_cannot_lead_to_another_route(server: FakeServer, client: Client) -> None:
    with pytest.raises(NotFound):
        client.runs.get("../keys?x=1")
    assert server.requests[0].url.raw_path == b"/api/v1/runs/..%2Fkeys%3Fx%3D1"
