"""Several machines: two launchers on this one that meet over loopback, one rank each."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import StageJob

pytestmark = pytest.mark.slow

SETTINGS = {"max_steps": 8, "precision": "float32", "canary_count": 0, "device_batch_size": 2}
COMMAND = {
    "max-steps": 6,
    "batch-size": 2,
    "precision": "float32",
    "compile": "off",
    "context-size": 64,
    "n-layer": 1,
    "n-head": 2,
    "n-embd": 16,
    "log-every": 1,
    "sample-tokens": 4,
    "canary-count": 0,
}
SLOW_STEPS = {**SETTINGS, "max_steps": 4000, "checkpoint_every": 100_000, "eval_every": 100_000}


def free_endpoint() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def start_machines(
    base_config: Callable[..., Any],
) -> Callable[..., list[subprocess.Popen[bytes]]]:
    def start(
        run_dir: Path, inputs: dict[str, str] | None = None, **changes: Any
    ) -> list[subprocess.Popen[bytes]]:
        resources = {"device": "cpu", "num_threads": 1, "nnodes": 2, "rdzv_endpoint": free_endpoint()}
        job = StageJob.model_validate(
            {
                "stage": "base",
                "config": base_config(**changes).model_dump(mode="json"),
                "resources": resources,
                "inputs": inputs or {},
            }
        )
        path = run_dir / "stages/base/stage.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job.model_dump_json())
        command = [
            sys.executable,
            "-m",
            "picochat_trainer",
            "base",
            "--config",
            str(path),
            "--out",
            str(run_dir),
        ]
        machines = []
        for machine in (0, 1):
            with (path.parent / f"log-{machine}.txt").open("ab") as log:
                machines.append(subprocess.Popen(command, stdout=log, stderr=log))
        return machines

    return start


def codes(machines: list[subprocess.Popen[bytes]]) -> list[int]:
    return [machine.wait(timeout=120) for machine in machines]


def logs(run_dir: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(run_dir.glob("stages/base/log-*.txt")))


def losses(run_dir: Path) -> list[float]:
    points = json.loads((run_dir / "train_report.json").read_text())["losses"]
    return [value for point in points for value in (point["train_loss"], point.get("val_loss", 0))]


def events(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "stages/base/events.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def train_base(folder: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    program = "import sys; from picochat_client.program import main; sys.exit(main())"
    command = ["-c", program, "train", "base", "--device=cpu", f"--out-dir={out}"]
    command += [f"--tokenizer={folder / 'tokenizer.json'}", f"--corpus={folder}"]
    command += [f"--{name}={value}" for name, value in COMMAND.items()]
    return subprocess.Popen(
        [sys.executable, *command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_one_command_on_two_machines_trains_once(prepared_run: Path, tmp_path: Path) -> None:
    """The command builds its tokens once, and the losses are those of two ranks of one machine."""
    alone = train_base(prepared_run, tmp_path / "one", "--nproc-per-node=2")
    said = alone.communicate(timeout=120)[0]
    assert alone.returncode == 0, said
    meeting = ("--nnodes=2", f"--rdzv-endpoint={free_endpoint()}")
    two = tmp_path / "two"
    machines = [train_base(prepared_run, two, *meeting) for _ in (0, 1)]
    texts = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], texts
    assert sorted("leading the run" in text for text in texts) == [False, True]
    assert losses(two) == losses(tmp_path / "one")
    assert [event["seq"] for event in events(two)] == list(range(1, len(events(two)) + 1))
    manifest = json.loads((two / "stages/base/manifest.json").read_text())
    assert any(output["path"] == "base/train_report.json" for output in manifest["outputs"])


def test_a_stop_of_one_machine_stops_both_with_a_checkpoint(
    new_run: Callable[[str], Path], start_machines: Callable[..., Any]
) -> None:
    run_dir = new_run("stopped")
    machines = start_machines(run_dir, **SLOW_STEPS)
    deadline = time.monotonic() + 120
    while not any(event["type"] == "progress" and event["data"]["step"] >= 3 for event in events(run_dir)):
        assert all(machine.poll() is None for machine in machines), logs(run_dir)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    machines[1].send_signal(signal.SIGTERM)
    assert codes(machines) == [StageExit.INTERRUPTED] * 2, logs(run_dir)
    assert [event for event in events(run_dir) if event["type"] == "checkpoint"]


def test_bad_input_ends_both_machines_alike(
    new_run: Callable[[str], Path], start_machines: Callable[..., Any]
) -> None:
    run_dir = new_run("bad")
    machines = start_machines(run_dir, inputs={"tokenizer.json": "0" * 64}, **SETTINGS)
    assert codes(machines) == [StageExit.BAD_INPUT] * 2, logs(run_dir)
    assert json.loads((run_dir / "stages/base/error.json").read_text())["code"] == "input_changed"
