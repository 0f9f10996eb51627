"""Base and SFT through their processes on two ranks, DDP and FSDP2, against one process with the same global batch."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.configs import FitConfig
from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import StageJob
from picochat_trainer.atomic import file_sha256
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.stages import fit
from picochat_trainer.training.checkpoint import load_weights
from support.forks import ForkedStage

pytestmark = pytest.mark.slow

# Gradients of two ranks are summed in another order than one process sums its rows.
LOSS_TOLERANCE = 2e-5
BASE = {
    "max_steps": 12,
    "checkpoint_every": 4,
    "precision": "float32",
    "grad_accum_steps": 2,
    "canary_count": 0,
    "optimizer": "muon",
    "ema_decay": 0.9,
    "dataset_mode": "packed",
    "auto_lr_scaling": True,
    "learning_rate": 1e-3,
}
SFT = {
    "max_steps": 40,
    "device_batch_size": 4,
    "grad_accum_steps": 2,
    "warmup_steps": 2,
    "learning_rate": 3e-3,
    "eval_every": 10,
    "checkpoint_every": 5,
    "log_every": 1,
    "sample_tokens": 8,
    "compile": "off",
    "precision": "float32",
}
RunStage = Callable[..., int]


def chat_rows(count: int) -> str:
    rows = [
        {"user": f"Say {i % 8}.", "assistant": f"{i % 2}", "category": f"c{i % 2}", "group": f"g{i % 8}"}
        for i in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def start_sft(
    run_dir: Path, *, is_program: bool = False, **resources: Any
) -> ForkedStage | subprocess.Popen[bytes]:
    ranks = resources.get("nproc_per_node", 1)
    job = StageJob.model_validate(
        {
            "stage": "sft",
            "config": {**SFT, "device_batch_size": 4 // ranks},
            "resources": {"device": "cpu", "num_threads": 1, **resources},
        }
    )
    path = run_dir / "stages/sft/stage.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job.model_dump_json())
    arguments, log = ["sft", "--config", str(path), "--out", str(run_dir)], path.parent / "log.txt"
    if not is_program:
        return ForkedStage(arguments, log)
    with log.open("ab") as output:
        command = [sys.executable, "-m", "picochat_trainer", *arguments]
        return subprocess.Popen(command, stdout=output, stderr=output)


def finish_sft(run_dir: Path, **resources: Any) -> int:
    return start_sft(run_dir, **resources).wait(timeout=120)


def losses(report: Path) -> list[float]:
    points = json.loads(report.read_text())["losses"]
    return [value for point in points for value in (point["train_loss"], point.get("val_loss", 0))]


def rates_of(report: Path) -> list[float]:
    return [point["learning_rate"] for point in json.loads(report.read_text())["losses"]]


@pytest.fixture(scope="module")
def bases(
    prepared_run: Path, tmp_path_factory: pytest.TempPathFactory, finish_stage: RunStage
) -> dict[str, Path]:
    """Finished base stages: one process, and two ranks with half the rows each."""
    folder = tmp_path_factory.mktemp("bases")
    made: dict[str, Path] = {}
    for name, rows, options in (
        ("one", 8, {}),
        ("ddp", 4, {"nproc": 2}),
        ("fsdp", 4, {"nproc": 2, "strategy": "fsdp"}),
    ):
        made[name] = Path(shutil.copytree(prepared_run, folder / name))
        code = finish_stage(made[name], device_batch_size=rows, **options, **BASE)
        assert code == StageExit.DONE, (made[name] / "stages/base/log.txt").read_text()[-4000:]
        (made[name] / "chat_benchmark.jsonl").write_text(chat_rows(60))
    return made


@pytest.fixture(scope="module")
def sft_of_one(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of an SFT in one process, on the base that FSDP trained."""
    run_dir = Path(shutil.copytree(bases["fsdp"], tmp_path_factory.mktemp("sft") / "one"))
    assert finish_sft(run_dir) == StageExit.DONE
    return losses(run_dir / "sft/sft_report.json")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_base_with_muon_and_a_mean_of_the_weights(bases: dict[str, Path], strategy: str) -> None:
    one = losses(bases["one"] / "base/train_report.json")
    two = losses(bases[strategy] / "base/train_report.json")
    assert len(one) == 2 * BASE["max_steps"]  # type: ignore[operator]
    assert two == pytest.approx(one, abs=LOSS_TOLERANCE)
    rates = [rates_of(bases[name] / "base/train_report.json") for name in ("one", strategy)]
    assert rates[0] == rates[1]
    assert max(rates[0]) == pytest.approx(1e-3 * math.sqrt(16 / 8))  # rows of a step, over all ranks


def test_what_rank_0_left_for_the_others_is_gone_in_the_end(bases: dict[str, Path]) -> None:
    assert not (bases["fsdp"] / "base/packing_plan").exists()
    control = json.loads((bases["fsdp"] / "stages/base/ddp_control.json").read_text())
    assert control["state"] == "done"


def test_fsdp_through_base_and_sft_leaves_ordinary_weights(
    bases: dict[str, Path], sft_of_one: list[float], tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(bases["fsdp"], tmp_path / "run"))
    assert finish_sft(run_dir, nproc_per_node=2, distributed_strategy="fsdp") == StageExit.DONE
    assert losses(run_dir / "sft/sft_report.json") == pytest.approx(sft_of_one, abs=LOSS_TOLERANCE)
    for name in ("base/checkpoint", "base/best_checkpoint", "sft/checkpoint"):
        config, vocab_size, tensors = load_weights(run_dir / name)
        GPT(config, vocab_size).load_state_dict(tensors)
    fit.run(StageContext(run_dir, StageJob(stage="fit", config={})), FitConfig(max_rows=2, max_new_tokens=2))
    report = json.loads((run_dir / layout.FIT_REPORT).read_text())
    assert report["subject"] == file_sha256(run_dir / "sft/checkpoint/model.safetensors")


def test_sft_killed_on_two_ranks_goes_on_with_one(
    bases: dict[str, Path], sft_of_one: list[float], tmp_path: Path
) -> None:
    run_dir = Path(shutil.copytree(bases["fsdp"], tmp_path / "run"))
    process = start_sft(run_dir, is_program=True, nproc_per_node=2)  # its ranks are found by their command
    wait_for_checkpoint(run_dir, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until_gone(run_dir)
    assert finish_sft(run_dir) == StageExit.DONE, (run_dir / "stages/sft/log.txt").read_text()[-4000:]
    assert any("resumed from step" in message for message in messages(run_dir))
    assert losses(run_dir / "sft/sft_report.json") == pytest.approx(sft_of_one, abs=LOSS_TOLERANCE)


def events(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "stages/sft/events.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def messages(run_dir: Path) -> list[str]:
    return [event["data"]["message"] for event in events(run_dir) if event["type"] == "log"]


def wait_for_checkpoint(run_dir: Path, process: ForkedStage | subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not any(event["type"] == "checkpoint" for event in events(run_dir)):
        assert process.poll() is None, (run_dir / "stages/sft/log.txt").read_text()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def wait_until_gone(run_dir: Path) -> None:
    """The ranks of a killed launcher end by themselves."""
    deadline = time.monotonic() + 20
    while any(names(run_dir, pid) for pid in os.listdir("/proc") if pid.isdigit()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names(run_dir: Path, pid: str) -> bool:
    try:
        is_zombie = Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        return not is_zombie and str(run_dir).encode() in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False
