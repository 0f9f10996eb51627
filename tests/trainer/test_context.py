import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.events import CheckpointFiles
from picochat_contract.manifest import StageJob
from picochat_trainer.context import EventWriter, Interrupted, StageContext


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def job(**values: Any) -> StageJob:
    return StageJob.model_validate({"stage": "base", "config": {}, **values})


def test_events_have_the_shape_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = EventWriter(path)
    events.progress(1, 10, "steps", "loss 2.0")
    events.metric(1, train_loss=2.0)
    events.log("info", "hello")
    events.sample("base", "The", " end")
    events.checkpoint(CheckpointFiles(directory="base/resume_checkpoint", step=1, files=()))
    assert [(e["seq"], e["type"]) for e in lines(path)] == [
        (1, "progress"),
        (2, "metric"),
        (3, "log"),
        (4, "sample"),
        (5, "checkpoint"),
    ]
    assert lines(path)[1]["data"] == {"step": 1, "values": {"train_loss": 2.0}}


def test_a_metric_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    events = EventWriter(tmp_path / "events.jsonl")
    events.metric(1, train_loss=float("nan"), grad_norm=float("inf"), lr=0.1)
    assert lines(tmp_path / "events.jsonl")[0]["data"]["values"] == {"lr": 0.1}


@pytest.mark.parametrize(
    "torn", [b'{"seq":3,"ty', b"\x00\x00\x00", b"no json\n", b'{"type":"log"}\n', b'{"seq":3}']
)
def test_seq_goes_on_after_a_torn_last_line(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    first = EventWriter(path)
    first.log("info", "one")
    first.log("info", "two")
    with path.open("ab") as file:
        file.write(torn)
    EventWriter(path).log("info", "three")
    assert [(e["seq"], e["data"]["message"]) for e in lines(path)] == [(1, "one"), (2, "two"), (3, "three")]


def test_a_file_with_nothing_but_a_torn_line_starts_at_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"se')
    EventWriter(path).log("info", "one")
    assert [e["seq"] for e in lines(path)] == [1]


def test_other_ranks_write_no_events(tmp_path: Path) -> None:
    context = StageContext(tmp_path, job(), rank=1, world_size=2)
    context.events.log("info", "silence")
    assert not context.is_main
    assert list(tmp_path.rglob("events.jsonl")) == []


def test_paths_may_move_a_file_or_a_folder_above_it(tmp_path: Path) -> None:
    moved = {"base": "/elsewhere", "base/best_checkpoint": "/best", "corpus.txt": "my.txt"}
    context = StageContext(
        tmp_path / "run", job(paths={k: str(tmp_path) + v if v[0] == "/" else v for k, v in moved.items()})
    )
    assert context.path("corpus.txt") == Path("my.txt")
    assert context.path("base/report.md") == tmp_path / "elsewhere/report.md"
    assert context.path("base/best_checkpoint/model.safetensors") == tmp_path / "best/model.safetensors"
    assert context.path("sft/report.md") == tmp_path / "run/sft/report.md"
    assert (tmp_path / "run/sft").is_dir()


def test_a_stop_outside_deferred_stop_interrupts_at_once(tmp_path: Path) -> None:
    context = StageContext(tmp_path, job())
    with pytest.raises(Interrupted):
        context.request_stop()


def test_a_stop_inside_deferred_stop_waits_for_its_end(tmp_path: Path) -> None:
    context = StageContext(tmp_path, job())
    reached = False
    with pytest.raises(Interrupted), context.deferred_stop():
        context.request_stop()
        assert context.stopping
        reached = True
    assert reached


def test_interrupted_passes_through_except_exception() -> None:
    assert not issubclass(Interrupted, Exception)


def test_a_checkpoint_request_is_taken_away_once_obeyed(tmp_path: Path) -> None:
    context = StageContext(tmp_path, job())
    assert not context.checkpoint_requested()
    (context.stage_dir / "checkpoint_now").touch()
    assert context.checkpoint_requested()
    context.checkpoint_done()
    assert not context.checkpoint_requested()
