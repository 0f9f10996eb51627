"""`run tiny --dry-run-steps` with real stages, and the confirmation that `run tiny` asks for on paid GPUs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_client import paid_launch as asking
from picochat_client.program import main
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import parse_mapping
from picochat_contract.stages import StageName
from picochat_contract.states import StageState
from picochat_trainer import local_run
from picochat_trainer.commands import dry_run as command
from picochat_trainer.commands.dry_run import stages_of_dry_run
from picochat_trainer.dry_run import DryRunRecord, Measured, estimated
from picochat_trainer.paid_launch import RECORD

QUICK = [
    *("--scale", "smoke", "--device", "cpu", "--set", "dataset.sft_rows=32", "--set", "dataset.eval_rows=16"),
    *("--set", "base.max_steps=12", "--set", "base.log_every=1"),
    *("--set", "resources.num_threads=1", "--set", "base.canary_count=0"),
]


def tiny(out: Path, *options: str) -> int:
    return main(["run", "tiny", "--out-dir", str(out), *options])


def record(over: tuple[str, ...]) -> DryRunRecord:
    measured = Measured.model_validate(
        dict.fromkeys(Measured.model_fields, None)
        | {"device": "cpu", "num_ranks": 1, "steps_done": 4, "steps_timed": 3, "tokens_per_step": 10}
        | {"seconds_per_step": 1.0, "tokens_per_second": 10.0}
    )
    base = parse_mapping({"scale": "smoke"}).base_config
    return DryRunRecord(
        scale="smoke",
        max_steps=base.max_steps,
        batch_source="given",
        measured=measured,
        estimate=estimated(measured, base, None),
        price_per_hour=None,
        max_hours=None,
        max_cost=None,
        over=over,
        notes=(),
    )


def test_only_base_differs_from_the_full_run() -> None:
    spec = parse_mapping({"scale": "smoke"})
    stages = stages_of_dry_run(spec, 5)
    assert list(stages)[-1] is StageName.BASE and StageName.SFT not in stages
    assert stages[StageName.BASE] == spec.base_config.model_copy(update={"stop_after_steps": 5})
    assert stages[StageName.PREFLIGHT].plan.base.stop_after_steps is None
    assert "sft" in stages[StageName.PREFLIGHT].plan.stages


@pytest.mark.slow
def test_the_full_run_goes_on_from_the_dry_run_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry, straight = tmp_path / "dry", tmp_path / "straight"
    assert tiny(dry, *QUICK, "--dry-run-steps", "8", "--price-per-hour", "2") == ClientExit.OK
    printed = capsys.readouterr().out
    assert "8 of 12 done, 7 timed" in printed and str(dry / "dry_run.md") in printed
    record = json.loads((dry / "dry_run.json").read_text())
    assert record["estimate"]["steps_left"] == 4 and record["estimate"]["cost"] > 0
    assert record["measured"]["validate_seconds"] > 0 and record["measured"]["checkpoint_seconds"] > 0
    for out in (dry, straight):
        assert tiny(out, *QUICK, "--until", "base") == ClientExit.OK
    weights = [(out / "base/checkpoint/model.safetensors").read_bytes() for out in (dry, straight)]
    assert weights[0] == weights[1]
    events = (dry / "stages/base/events.jsonl").read_text()
    assert "resumed from step 8" in events
    assert tiny(dry, *QUICK, "--dry-run-steps", "8") == ClientExit.USAGE
    assert "is finished, and a dry run would replace it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("over", "expected"), [((), ClientExit.OK), (("too dear",), ClientExit.GATE_BLOCKED)]
)
def test_an_estimate_over_a_limit_exits_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    over: tuple[str, ...],
    expected: ClientExit,
) -> None:
    def succeed(self: local_run.LocalRun) -> list[Any]:
        for row in self.rows:
            row.state = StageState.SUCCEEDED
        return self.rows

    monkeypatch.setattr(local_run.LocalRun, "run", succeed)
    monkeypatch.setattr(command, "dry_run_record", lambda *_, **__: record(over))
    assert tiny(tmp_path, *QUICK, "--dry-run-steps", "4") == expected
    assert ("over the limit: too dear" in capsys.readouterr().out) == bool(over)
    assert json.loads((tmp_path / "dry_run.json").read_text())["over"] == list(over)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run-steps", "12"], "no less than base.max_steps 12"),
        (["--dry-run-steps", "3", "--until", "tokenizer"], "comes before base"),
        (["--dry-run-steps", "3", "--max-cost", "5"], "--max-cost needs --price-per-hour"),
        (["--price-per-hour", "5"], "give --dry-run-steps, too"),
        (
            ["--dry-run-steps", "3", "--price-per-hour", "inf"],
            "--price-per-hour inf: expected a finite number",
        ),
        (["--dry-run-steps", "3", "--price-per-hour", "1", "--max-cost", "inf"], "--max-cost inf: expected"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert tiny(tmp_path / "out", *QUICK, *options) == ClientExit.USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Run folders in which something would have been started; nothing is."""
    found: list[Path] = []

    def start(self: local_run.LocalRun) -> list[Any]:
        found.append(self.run_dir)
        self.run_dir.mkdir(exist_ok=True)
        self.rows[0].state = StageState.FAILED
        return self.rows

    monkeypatch.setattr(local_run.LocalRun, "run", start)
    return found


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    def at_a_terminal(value: bool) -> list[str]:
        asked: list[str] = []

        def confirm(question: str, **_: object) -> bool:
            asked.append(question)
            return value

        monkeypatch.setattr(asking, "is_terminal", lambda: True)
        monkeypatch.setattr(asking.typer, "confirm", confirm)
        return asked

    return at_a_terminal


def test_no_starts_nothing(tmp_path: Path, started: list[Path], answer: Callable[[bool], list[str]]) -> None:
    asked = answer(False)
    assert tiny(tmp_path / "out", "--scale", "h100-pilot") == ClientExit.CANCELLED
    assert asked and started == [] and not (tmp_path / "out").exists()


def test_yes_starts_it_and_stays_on_record_for_the_next_call(
    tmp_path: Path, started: list[Path], answer: Callable[[bool], list[str]]
) -> None:
    asked, out = answer(True), tmp_path / "out"
    for _ in range(2):
        tiny(out, "--scale", "h100-pilot")
    assert (len(asked), started) == (1, [out, out])
    record = json.loads((out / RECORD).read_text())
    assert record["launch"]["scale"] == "h100-pilot" and record["confirmed_by"]
    assert json.loads((out / "run_spec.json").read_text())["confirm_paid_launch"] is True
    tiny(out, "--scale", "h100-pilot", "--set", "base.max_steps=9000")  # another launch is asked about
    assert len(asked) == 2


@pytest.mark.parametrize("option", ["--confirm-paid-launch", "--yes"])
def test_an_option_answers_where_nobody_is_there(tmp_path: Path, started: list[Path], option: str) -> None:
    out = tmp_path / "out"
    assert tiny(out, "--scale", "h100-pilot") == ClientExit.USAGE
    assert started == []
    tiny(out, "--scale", "h100-pilot", option)
    assert started == [out]


def test_a_short_dry_run_asks_nothing_and_a_long_one_does(tmp_path: Path, started: list[Path]) -> None:
    out = tmp_path / "out"
    tiny(out, "--scale", "h100-pilot", "--dry-run-steps", "100")
    assert started == [out]
    assert tiny(out, "--scale", "h100-pilot", "--dry-run-steps", "4000") == ClientExit.USAGE
    assert started == [out]
