"""Starting stage processes: the protocol as whoever starts a stage sees it. Uses the tokenizer stage: no torch."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.events import EventType, StageEvent
from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import StageJob
from picochat_trainer.atomic import file_sha256
from picochat_trainer.launch import run_stage


def job(stage: str = "tokenizer", config: dict[str, Any] | None = None, **values: Any) -> StageJob:
    return StageJob.model_validate({"stage": stage, "config": config or {"type": "byte"}, **values})


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text("A small text.\n" * 20)
    return tmp_path


def test_a_stage_ends_with_its_manifest_and_its_events_are_passed_on(run_dir: Path) -> None:
    events: list[StageEvent] = []
    result = run_stage(run_dir, job(), events.append)
    assert result.exit_code == StageExit.DONE
    assert result.manifest is not None and result.error is None
    for output in result.manifest.outputs:
        assert file_sha256(run_dir / output.path) == output.sha256
    assert {output.path for output in result.manifest.outputs} >= {"tokenizer.json"}
    assert result.manifest.environment["python"]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_the_manifest_has_the_fingerprint_of_the_job(run_dir: Path) -> None:
    result = run_stage(run_dir, job(fingerprint="f" * 64))
    assert result.manifest is not None and result.manifest.fingerprint == "f" * 64


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"inputs": {"corpus.txt": "0" * 64}}, "input_changed"),
        ({"inputs": {"corpus.txt": "0" * 64, "gone.txt": "0" * 64}}, "input_changed"),
        ({"config": {"typ": "byte"}}, "unknown_key"),
        ({"config": {"type": "word"}}, "invalid_value"),
        ({"paths": {"corpus.txt": "/no/such/file"}}, "corpus_missing"),
    ],
)
def test_bad_input_is_exit_2_with_a_code_and_no_manifest(
    run_dir: Path, changes: dict[str, Any], code: str
) -> None:
    manifest = run_dir / "stages/tokenizer/manifest.json"  # of an attempt before
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    result = run_stage(run_dir, job(**changes))
    assert result.exit_code == StageExit.BAD_INPUT
    assert result.error is not None and result.error.code == code
    assert not manifest.exists()


def test_a_success_takes_the_error_of_the_attempt_before_away(run_dir: Path) -> None:
    assert run_stage(run_dir, job(config={"type": "word"})).exit_code == StageExit.BAD_INPUT
    assert run_stage(run_dir, job()).exit_code == StageExit.DONE
    assert not (run_dir / "stages/tokenizer/error.json").exists()


def test_events_of_an_earlier_attempt_are_not_told_again(run_dir: Path) -> None:
    run_stage(run_dir, job())
    events: list[StageEvent] = []
    run_stage(run_dir, job(), events.append)
    assert events and events[0].seq > 1


def test_a_fault_of_ours_is_exit_1_with_a_traceback_in_the_log(run_dir: Path) -> None:
    (run_dir / "tokenizer.json").mkdir()  # the output cannot be put in its place
    result = run_stage(run_dir, job())
    assert result.exit_code == StageExit.FAILED
    assert result.error is not None and result.error.code == "internal"
    assert "Traceback" in (run_dir / "stages/tokenizer/log.txt").read_text()


def test_stages_without_a_model_never_import_torch(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = run_dir / "fake"
    (broken / "torch").mkdir(parents=True)
    (broken / "torch/__init__.py").write_text("raise ImportError('torch was imported')")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    assert run_stage(run_dir, job()).exit_code == StageExit.DONE
    dataset = job("dataset", {"sft_rows": 32, "eval_rows": 16})
    result = run_stage(run_dir, dataset)
    assert result.exit_code == StageExit.DONE, result.error


def test_a_stop_signal_to_the_caller_reaches_the_stage(run_dir: Path) -> None:
    """The dataset stage has no checkpoint: it ends at once, and nothing counts as its output."""
    started = threading.Event()

    def stop_when_started() -> None:
        events = run_dir / "stages/dataset/events.jsonl"
        deadline = time.monotonic() + 60
        while not events.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        started.set()
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_when_started)
    thread.start()
    seen: list[StageEvent] = []
    result = run_stage(run_dir, job("dataset", {"sft_rows": 6000, "eval_rows": 1000}), seen.append)
    thread.join()
    assert started.is_set() and result.stopped
    assert result.exit_code == StageExit.INTERRUPTED
    assert result.manifest is None and result.error is None
    assert any(event.type is EventType.PROGRESS for event in seen)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for the process in /proc")
def test_a_stage_that_is_killed_shows_the_signal(run_dir: Path) -> None:
    def kill_the_stage(event: StageEvent) -> None:
        config = (run_dir / "stages/dataset/stage.json").as_posix().encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and config in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)

    result = run_stage(run_dir, job("dataset", {"sft_rows": 6000, "eval_rows": 1000}), kill_the_stage)
    assert result.exit_code == -signal.SIGKILL
    assert not result.stopped
