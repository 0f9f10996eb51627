from pathlib import Path

from picochat_trainer.context import EventWriter
from picochat_trainer.event_tail import EventTail


def test_each_complete_line_comes_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.new_events() == []
    writer = EventWriter(path)
    writer.log("info", "one")
    assert [e.seq for e in tail.new_events()] == [1]
    writer.log("info", "two")
    writer.log("info", "three")
    assert [e.seq for e in tail.new_events()] == [2, 3]
    assert tail.new_events() == []


def test_a_line_without_its_end_waits(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventWriter(path).log("info", "one")
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    tail = EventTail(path)
    assert tail.new_events() == []
    path.write_bytes(whole)
    assert [e.data["message"] for e in tail.new_events()] == ["one"]


def test_a_tail_from_the_end_skips_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.log("info", "old")
    tail = EventTail(path, from_end=True)
    writer.log("info", "new")
    assert [e.data["message"] for e in tail.new_events()] == ["new"]


def test_a_torn_line_that_the_next_attempt_cuts_off_costs_no_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventWriter(path).log("info", "one")
    with path.open("ab") as file:
        file.write(b'{"torn')
    tail = EventTail(path, from_end=True)
    EventWriter(path).log("info", "two")
    assert [(e.seq, e.data["message"]) for e in tail.new_events()] == [(2, "two")]
