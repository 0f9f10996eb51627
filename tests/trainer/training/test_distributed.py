"""How a base stage with two processes ends: stopped, killed, and with bad input."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.exit_codes import StageExit
from support.forks import ForkedStage

SETTINGS = {"max_steps": 12, "checkpoint_every": 4, "precision": "float32", "grad_accum_steps": 2}
SLOW_STEPS = {**SETTINGS, "max_steps": 4000, "checkpoint_every": 100_000, "eval_every": 100_000}


def events(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "stages/base/events.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def wait_for_step(run_dir: Path, process: ForkedStage | subprocess.Popen[bytes], step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(e["type"] == "progress" and e["data"]["step"] >= step for e in events(run_dir)):
        assert process.poll() is None, (run_dir / "stages/base/log.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ranks_of(run_dir: Path) -> list[int]:
    """Process ids whose command line names this run folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if str(run_dir).encode() in command and state != "Z":
                found.append(int(entry.name))
    return found


def test_sigterm_to_two_processes_exits_75_with_a_checkpoint_that_can_be_resumed(
    new_run: Callable[[str], Path],
    start_stage: Callable[..., ForkedStage],
) -> None:
    run_dir = new_run("stopped")
    process = start_stage(run_dir, nproc=2, **SLOW_STEPS)
    wait_for_step(run_dir, process, 5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == StageExit.INTERRUPTED
    stopped_at = [e["data"]["step"] for e in events(run_dir) if e["type"] == "checkpoint"][-1]
    assert stopped_at >= 5
    again = start_stage(run_dir, nproc=2, **SLOW_STEPS)
    wait_for_step(run_dir, again, stopped_at + 1)
    again.send_signal(signal.SIGTERM)
    assert again.wait(timeout=60) == StageExit.INTERRUPTED
    messages = [e["data"]["message"] for e in events(run_dir) if e["type"] == "log"]
    assert any(message.startswith(f"resumed from step {stopped_at} ") for message in messages)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_no_rank_outlives_a_killed_launcher(
    new_run: Callable[[str], Path], start_stage: Callable[..., subprocess.Popen[bytes]]
) -> None:
    run_dir = new_run("orphans")
    process = start_stage(run_dir, nproc=2, is_program=True, **SLOW_STEPS)
    wait_for_step(run_dir, process, 1)
    assert len(ranks_of(run_dir)) == 3
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while ranks_of(run_dir):
        assert time.monotonic() < deadline, "ranks are still alive"
        time.sleep(0.02)


def test_bad_input_in_the_ranks_is_exit_2_of_the_stage(
    new_run: Callable[[str], Path], finish_stage: Callable[..., int]
) -> None:
    run_dir = new_run("bad")
    assert finish_stage(run_dir, nproc=2, inputs={"tokenizer.json": "0" * 64}) == StageExit.BAD_INPUT
    assert json.loads((run_dir / "stages/base/error.json").read_text())["code"] == "input_changed"
