"""The local runner on the stages before torch: reuse, locking, failures, a preflight that blocks."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest
from picochat_contract.api import EventOut
from picochat_contract.data_configs import DatasetConfig
from picochat_contract.errors import ContractError
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.states import StageState
from picochat_trainer import launch, local_run
from picochat_trainer.inputs import source_digests
from picochat_trainer.local_run import LocalRun, LocalStage, locked, read_preflight
from support.in_process import run_stage_here


@pytest.fixture(autouse=True)
def stages_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runner decides does not depend on where a stage runs; one test keeps real processes."""
    monkeypatch.setattr(local_run, "run_stage", run_stage_here)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} quick brown foxes jump over the lazy dog.\n" for n in range(60)))
    return path


def run(tmp_path: Path, text: Path, **changes: Any) -> tuple[list[LocalStage], list[EventOut]]:
    spec = parse_mapping(
        {
            "until": "tokenizer",
            "dataset": {"sources": [{"type": "file", "path": str(text)}], "sft_rows": 32, "eval_rows": 16},
            "tokenizer": {"type": "byte"},
            **changes,
        }
    )
    events: list[EventOut] = []
    rows = LocalRun(
        run_dir=tmp_path / "run", stages=expand(spec), resources=spec.resources, on_event=events.append
    ).run()
    return rows, events


def states(rows: list[LocalStage]) -> list[StageState]:
    return [row.state for row in rows]


DONE, CACHED = StageState.SUCCEEDED, StageState.CACHED


def test_a_second_run_reuses_what_the_first_finished(tmp_path: Path, text: Path) -> None:
    assert states(run(tmp_path, text)[0]) == [DONE] * 4
    assert states(run(tmp_path, text)[0]) == [CACHED] * 4


def test_a_changed_setting_runs_its_stage_and_preflight_of_the_plan(tmp_path: Path, text: Path) -> None:
    run(tmp_path, text)
    assert states(run(tmp_path, text, tokenizer={"type": "char"})[0]) == [CACHED, CACHED, DONE, DONE]


def test_a_changed_source_file_runs_everything_again(tmp_path: Path, text: Path) -> None:
    run(tmp_path, text)
    text.write_text(text.read_text() + "One more line that was not there before.\n")
    assert states(run(tmp_path, text)[0]) == [DONE] * 4


def test_the_manual_of_another_python_is_another_source(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DatasetConfig()
    before = source_digests(config)
    monkeypatch.setattr(topics, "topics", {**topics.topics, "assert": "another text"})
    assert before.keys() == source_digests(config).keys() == {"pydoc"}
    assert before != source_digests(config)


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_a_damaged_output_is_made_again(tmp_path: Path, text: Path, damage: str) -> None:
    run(tmp_path, text)
    tokenizer = tmp_path / "run/tokenizer.json"
    if damage == "remove":
        tokenizer.unlink()
    else:
        tokenizer.write_bytes(tokenizer.read_bytes().replace(b"a", b"b", 1))
    assert states(run(tmp_path, text)[0]) == [CACHED, CACHED, CACHED, DONE]


def test_a_failure_skips_the_rest_and_says_why(tmp_path: Path, text: Path) -> None:
    text.write_bytes(b"\xff\xfe\x00\x01")
    rows, _ = run(tmp_path, text)
    assert states(rows) == [StageState.FAILED, *[StageState.SKIPPED] * 3]
    assert rows[0].message is not None and rows[0].message.startswith("file_unreadable: ")


def test_a_source_that_is_not_there_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no file or folder"):
        run(tmp_path, tmp_path / "none.txt")


def test_its_events_are_those_of_a_server(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_run, "run_stage", launch.run_stage)
    _, events = run(tmp_path, text)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    moves = [(e.data["id"], e.data["to"]) for e in events if e.type == "state"]
    assert moves[:3] == [("dataset", "queued"), ("dataset", "running"), ("dataset", "succeeded")]
    assert any(event.type == "progress" for event in events)


def test_two_runs_never_share_a_folder(tmp_path: Path, text: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(ContractError, match="another run is working"):
        run(tmp_path, text)


def test_the_lock_lasts_as_long_as_a_stage_that_outlived_its_runner(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder) as descriptor:
        stage = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )
    with pytest.raises(ContractError, match="another run is working"), locked(folder):
        pass
    stage.communicate()
    with locked(folder):
        pass


def test_the_job_names_the_digests_that_the_fingerprint_is_made_of(tmp_path: Path, text: Path) -> None:
    rows, _ = run(tmp_path, text)
    job = json.loads((tmp_path / "run/stages/tokenizer/stage.json").read_text())
    assert rows[-1].manifest is not None
    assert job["fingerprint"] == rows[-1].manifest.fingerprint
    assert (
        {"corpus_manifest.json"}
        <= set(job["inputs"])
        <= {
            "corpus_manifest.json",
            "corpus.txt",
            *(f"corpus/{name}" for name in ("part-00000.parquet", "dropped.parquet")),
        }
    )


LEAKY_CHAT = [{"user": f"Question {n}?", "assistant": "It is so."} for n in range(40)]
LEAKY_EVAL = [
    {"user": "question 7", "must_include": ["so"]},
    {"user": "What colour is the sky?", "must_include": ["blue"]},
]


@pytest.fixture
def leaky(tmp_path: Path) -> dict[str, Any]:
    """A dataset section whose eval repeats an SFT prompt."""
    section = {}
    for name, rows in (("chat", LEAKY_CHAT), ("eval", LEAKY_EVAL)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        section[name] = {"type": "file", "path": str(path)}
    return section


def run_leaky(tmp_path: Path, text: Path, leaky: dict[str, Any], **preflight: bool) -> list[LocalStage]:
    sources = [{"type": "file", "path": str(text)}]
    return run(tmp_path, text, dataset={"sources": sources, **leaky}, preflight=preflight)[0]


def test_a_blocked_preflight_skips_the_rest_and_says_by_what(
    tmp_path: Path, text: Path, leaky: dict[str, Any]
) -> None:
    rows = run_leaky(tmp_path, text, leaky)
    assert states(rows) == [DONE, DONE, DONE, StageState.SKIPPED]
    assert rows[-1].message is not None and "preflight: blocked by honesty" in rows[-1].message
    assert not (tmp_path / "run/tokenizer.json").exists()


def test_a_waived_block_lets_the_run_go_on(tmp_path: Path, text: Path, leaky: dict[str, Any]) -> None:
    run_leaky(tmp_path, text, leaky)
    assert states(run_leaky(tmp_path, text, leaky, allow_leaky_eval=True)) == [CACHED, CACHED, DONE, DONE]
    report = read_preflight(tmp_path / "run/preflight.json")
    assert report is not None and [check.id for check in report.waived] == ["honesty"]


def test_a_blocked_preflight_is_looked_at_again(tmp_path: Path, text: Path, leaky: dict[str, Any]) -> None:
    """The machine may have been mended: free disk is in no fingerprint."""
    run_leaky(tmp_path, text, leaky)
    assert states(run_leaky(tmp_path, text, leaky)) == [CACHED, CACHED, DONE, StageState.SKIPPED]


def test_a_preflight_of_another_host_is_not_reused(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run folder can be copied; what is in it was measured where it came from."""
    run(tmp_path, text)
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert states(run(tmp_path, text)[0]) == [CACHED, CACHED, DONE, CACHED]


def test_a_disk_that_filled_up_since_is_measured_again(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"until": "preflight"}  # which judges the whole run, disk space included
    run(tmp_path, text, **plan)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1))
    assert states(run(tmp_path, text, **plan)[0]) == [CACHED, CACHED, DONE]
    report = read_preflight(tmp_path / "run/preflight.json")
    assert report is not None and "disk_space" in {check.id for check in report.blocking}


def test_without_a_readable_preflight_nothing_goes_on(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_run, "read_preflight", lambda path: None)
    rows, _ = run(tmp_path, text)
    assert states(rows) == [DONE, DONE, DONE, StageState.SKIPPED]
    assert rows[-1].message is not None and "cannot be read" in rows[-1].message


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_a_preflight_report_that_cannot_be_read_is_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "preflight.json"
    if content is not None:
        path.write_text(content)
    assert read_preflight(path) is None
