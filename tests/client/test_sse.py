import httpx
import pytest
from picochat_client import Client, NotFound, ServerUnreachable, UnexpectedAnswer
from picochat_client._sse import ServerSentEvent, parse_stream

from .conftest import FakeClock
from .fake_server import FakeServer
from .scripted import FakeRun, Script


def followed(client: Client, run: FakeRun, after: int = 0) -> list[int]:
    return [event.seq for event in client.runs.events(run.id, after=after, follow=True)]


def every_seq(run: FakeRun, after: int = 0) -> list[int]:
    return list(range(after + 1, len(run.events) + 1))


def test_two_hundred_drops_lose_and_repeat_nothing(client: Client, server: FakeServer) -> None:
    run = server.add_run(script=Script(num_metrics=150))
    server.drops_left, server.reveal_by_list, server.replays = 200, 0, 3
    assert followed(client, run) == every_seq(run)
    assert server.num_drops == 200


def test_reconnects_from_the_last_event_it_has(client: Client, server: FakeServer) -> None:
    run = server.add_run()
    server.drops_left, server.reveal_by_list = 4, 0
    followed(client, run, after=2)
    streams = server.calls("GET", f"/runs/{run.id}/events/stream")
    starts = [int(request.headers["Last-Event-ID"]) for request in streams]
    assert starts == sorted(starts)
    assert starts[0] >= 2


def test_events_that_a_stream_skips_come_from_the_list(client: Client, server: FakeServer) -> None:
    run = server.add_run(script=Script(num_metrics=20))
    server.skips, server.reveal_by_list = True, 0
    assert followed(client, run) == every_seq(run)


def test_polls_the_list_where_there_is_no_stream(client: Client, server: FakeServer) -> None:
    run = server.add_run()
    server.streams = False
    assert followed(client, run) == every_seq(run)
    assert len(server.calls("GET", f"/runs/{run.id}/events/stream")) == 1


def test_polls_the_list_where_a_proxy_holds_the_stream_back(client: Client, server: FakeServer) -> None:
    run = server.add_run()

    def silence(request: httpx.Request) -> None:
        if request.url.path.endswith("/stream"):
            raise httpx.ReadTimeout("nothing came", request=request)

    server.faults.append(silence)
    assert followed(client, run) == every_seq(run)
    assert len(server.calls("GET", f"/runs/{run.id}/events/stream")) == 3


def test_polls_the_list_where_a_page_comes_instead_of_a_stream(client: Client, server: FakeServer) -> None:
    run = server.add_run()

    def login_page(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, text="<html>") if request.url.path.endswith("/stream") else None

    server.faults.append(login_page)
    assert followed(client, run) == every_seq(run)


def test_an_outage_within_the_patience_is_waited_out(client: Client, server: FakeServer) -> None:
    run = server.add_run()
    server.drops_left, server.reveal_by_list = 1, 0
    seen = []
    for event in client.runs.events(run.id, follow=True):
        seen.append(event.seq)
        if event.seq == 2:
            server.fail(*[httpx.ConnectError] * 10)
    assert seen == every_seq(run)


def test_an_outage_beyond_the_patience_is_server_unreachable(
    client: Client, server: FakeServer, clock: FakeClock
) -> None:
    run = server.add_run()
    server.fail(*[httpx.ConnectError] * 200)
    with pytest.raises(ServerUnreachable):
        followed(client, run)
    assert clock.now == pytest.approx(60, abs=1)


def test_a_run_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        list(client.runs.events("run_none", follow=True))


def test_a_server_that_hides_its_newest_event_is_found_out(client: Client, server: FakeServer) -> None:
    run = server.add_run()
    run.visible = len(run.events)
    run.events.pop()
    run.events[-1] = run.events[-1].model_copy(update={"seq": 1})
    with pytest.raises(UnexpectedAnswer, match="as the newest"):
        followed(client, run)


def test_listing_without_follow_stops_at_what_is_stored(client: Client, server: FakeServer) -> None:
    run = server.add_run(script=Script(num_metrics=60))
    run.visible, server.reveal_by_list = 120, 0
    assert [event.seq for event in client.runs.events(run.id, after=3)] == list(range(4, 121))


def messages(*chunks: bytes) -> list[ServerSentEvent]:
    return [item for item in parse_stream(chunks) if item is not None]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_parses_every_kind_of_line_end_cut_anywhere(end: bytes) -> None:
    raw = end.join(
        [b": ping", b"", b"id: 7", b"event: log", b"data: a", b"data:b", b"", b"data: next", b"", b""]
    )
    expected = [
        ServerSentEvent(id="7", event="log", data="a\nb"),
        ServerSentEvent(id="7", event="message", data="next"),
    ]
    for cut in range(len(raw)):
        assert messages(raw[:cut], raw[cut:]) == expected, cut
    assert messages(*(bytes([byte]) for byte in raw)) == expected


def test_line_separators_inside_the_data_end_no_line() -> None:
    raw = 'data: {"text": "a\u2028b\u0085c\u000bd"}\n\n'.encode()
    assert messages(raw)[0].data == '{"text": "a\u2028b\u0085c\u000bd"}'


def test_a_message_cut_off_by_the_end_of_the_stream_is_not_passed_on() -> None:
    assert messages(b"id: 1\ndata: whole\n\nid: 2\ndata: ha") == [
        ServerSentEvent(id="1", event="message", data="whole")
    ]


def test_a_ping_shows_that_the_stream_lives() -> None:
    assert list(parse_stream([b": ping\n\n"])) == [None]
