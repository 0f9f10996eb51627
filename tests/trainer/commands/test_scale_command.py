"""`picochat scale plan` as a user calls it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from picochat_client.program import main
from picochat_client.specs import read_spec
from picochat_contract.exit_codes import ClientExit
from picochat_contract.overrides import with_setting
from picochat_contract.preflight import PreflightRecord
from picochat_contract.preflight_plan import PLAN_RULES
from picochat_contract.spec import parse_mapping
from picochat_trainer import local_run
from support.in_process import run_stage_here


def plan(*options: str) -> int:
    return main(["scale", "plan", *options])


def test_it_prints_shape_batch_memory_time_and_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--target-params", "100m", "--dataset-tokens", "2.5b") == ClientExit.OK
    out = capsys.readouterr().out
    for part in (
        "106,982,144",
        "16 x 768",
        "12 of 64, 4",
        "arXiv 2503.04715",
        "2505.13738",
        "GB",
        "hours",
        "0.86",
    ):
        assert part in out
    assert (
        out.strip().splitlines()[-1].startswith("picochat run tiny --out-dir runs/plan-107m --scale custom")
    )


def test_the_file_is_a_run_spec_and_says_how_it_came_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.yaml"
    assert plan("--target-params", "100m", "--out", str(out)) == ClientExit.OK
    spec = read_spec(out).spec
    assert (spec.base.model.n_layer, spec.tokenizer.vocab_size) == (16, 8_192)
    assert spec.base.learning_rate is None and spec.base.weight_decay is None
    assert "# parameters: 106,982,144" in out.read_text()
    assert f"--spec {out}" in capsys.readouterr().out


def test_the_command_without_a_file_gives_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--depth", "6", "--world-size", "2", "--json") == ClientExit.OK
    printed = json.loads(capsys.readouterr().out)
    words = shlex.split(printed["command"])
    settings = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
    raw: dict[str, Any] = {"name": printed["spec"]["name"]}
    for setting in settings:
        raw = with_setting(raw, setting)
    assert parse_mapping(raw) == parse_mapping(printed["spec"])


def test_json_holds_what_follows_from_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--per-device-batch-size", "auto", "--context-size", "2,048", "--device", "h200"]
    assert plan("--target-params", "100m", *options, "--json") == ClientExit.OK
    printed = json.loads(capsys.readouterr().out)
    assert printed["memory_bytes"] == sum(printed["memory"].values()) < printed["device_memory_bytes"]
    assert printed["spec"]["base"]["device_batch_size"] > 8
    assert printed["hours"] > 0 and printed["epochs"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "derived by Step Law, arXiv 2503.04715"),
        (["--grad-accum-steps", "4"], "16,384 (given)"),
        (["--global-batch-tokens", "16,384"], "16,384 (given)"),
    ],
)
def test_it_says_where_the_batch_comes_from(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("--depth", "6", *options) == ClientExit.OK
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tokens per step")]
    assert said in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --target-params"),
        (["--target-params", "many"], "expected a number such as 100m"),
        (["--target-params", "100m", "--attn-backend", "fast"], "fast"),
        (["--target-params", "100m", "--world-size", "0"], "world_size"),
        (["--depth", "4", "--out", "."], "is a folder"),
        (["--depth", "4", "--global-batch-tokens", "5k"], "nearest values that fit are 4,096 and 8,192"),
    ],
)
def test_a_wrong_call_is_exit_64(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(*options) == ClientExit.USAGE
    assert said in capsys.readouterr().err


def test_run_tiny_takes_the_file_and_preflight_has_nothing_against_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_run, "run_stage", run_stage_here)
    text, out, run_dir = tmp_path / "text", tmp_path / "plan.yaml", tmp_path / "run"
    text.mkdir()
    for number in range(40):
        (text / f"{number}.txt").write_text(f"Document {number} says {number * number} and no more.\n" * 60)
    small = "--depth 1 --vocab-size 1024 --context-size 64 --device cpu --long-run-gate-profile research"
    assert plan(*small.split(), "--out", str(out)) == ClientExit.OK
    main(
        [
            "run",
            "tiny",
            "--out-dir",
            str(run_dir),
            "--spec",
            str(out),
            "--input",
            str(text),
            "--preflight-only",
        ]
    )
    report = PreflightRecord.model_validate_json((run_dir / "preflight.json").read_text())
    assert not {check.id for check in report.blocking} & {rule.id for rule in PLAN_RULES}
    assert report.budget["planned_param_data_ratio"] == pytest.approx(20, rel=0.01)


def test_the_command_with_a_file_can_be_pasted_and_short_times_are_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a plan.yaml"
    assert plan("--depth", "4", "--out", str(out)) == ClientExit.OK
    printed = capsys.readouterr().out
    assert str(out) in shlex.split(printed.strip().splitlines()[-1])
    assert " minutes on 1 x h100" in printed and "0.0 hours" not in printed
