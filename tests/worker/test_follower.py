import json
from pathlib import Path

import pytest
from picochat_worker import follower as module
from picochat_worker.follower import Follower


def line(seq: int) -> bytes:
    event = {"seq": seq, "time": "2026-01-01T00:00:00Z", "type": "log", "data": {"message": "m"}}
    return json.dumps(event).encode() + b"\n"


def read(follower: Follower, limit: int = 1000) -> list[int]:
    batch = follower.read(limit)
    follower.advance(batch)
    return [event.seq for event in batch.events]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_file_that_is_not_there_yet_has_no_events(path: Path) -> None:
    assert read(Follower(path)) == []


def test_torn_last_line_is_read_when_it_is_whole(path: Path) -> None:
    follower = Follower(path)
    path.write_bytes(line(1) + line(2)[:20])
    assert read(follower) == [1]
    path.write_bytes(line(1) + line(2) + line(3))
    assert read(follower) == [2, 3]


def test_torn_line_that_a_restarted_stage_cuts_off_costs_nothing(path: Path) -> None:
    follower = Follower(path)
    path.write_bytes(line(1) + line(2)[:20])
    assert read(follower) == [1]
    with path.open("r+b") as file:
        file.truncate(len(line(1)))
    assert read(follower) == []
    with path.open("ab") as file:
        file.write(line(2))
    assert read(follower) == [2]


def test_shorter_file_is_read_from_its_start(path: Path) -> None:
    follower = Follower(path)
    path.write_bytes(line(1) + line(2))
    assert read(follower) == [1, 2]
    path.write_bytes(line(1))
    assert read(follower) == [1]


def test_batch_that_is_not_advanced_is_read_again(path: Path) -> None:
    follower = Follower(path)
    path.write_bytes(b"".join(line(seq) for seq in range(1, 6)))
    assert [event.seq for event in follower.read(2).events] == [1, 2]
    assert [read(follower, 2), read(follower, 2), read(follower, 2)] == [[1, 2], [3, 4], [5]]


def test_line_that_is_no_event_is_skipped(path: Path) -> None:
    path.write_bytes(line(1) + b"{not json}\n" + line(2))
    assert read(Follower(path)) == [1, 2]


def test_line_without_an_end_does_not_stop_the_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_BYTES", 100)
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 300)
    path.write_bytes(b"x" * 350 + b"\n" + line(1))
    follower = Follower(path)
    assert [seq for _ in range(6) for seq in read(follower)] == [1]
