"""The suite and its command: what counts as passed, which reports are written, how it exits."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from picochat_client.program import main
from picochat_contract.exit_codes import ClientExit
from picochat_trainer.sanity import suite
from picochat_trainer.sanity.check import CheckStatus, Finding, failed, passed, skipped
from picochat_trainer.sanity.setup import Setup

Finish = Callable[[Setup], Finding]
MISSION = {
    "attention_backend",
    "modern_init_loss",
    "precision_backward",
    "kv_cache_equivalence",
    "resume_fingerprint_guard",
    "resume_loss_determinism",
    "sharded_loader",
    "ddp_batcher_rank_split",
    "ddp_dry_run",
    "fsdp_dry_run",
    "hf_mapping",
    "torch_compile",
    "scale_capacity",
    "disk",
    "environment",
}


def good(setup: Setup) -> Finding:
    return passed(0.5, "<= 1", "fine")


def bad(setup: Setup) -> Finding:
    return failed(2.0, "<= 1", "too | much")


def unknown(setup: Setup) -> Finding:
    return skipped("needs CUDA")


def broken(setup: Setup) -> Finding:
    raise KeyError("lost")


@pytest.fixture
def with_checks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def replace(**checks: Finish) -> None:
        found = tuple(suite.Check(id=name, run=run, fix=f"mend {name}") for name, run in checks.items())
        monkeypatch.setattr(suite, "CHECKS", found)

    return replace


def test_every_check_of_the_mission_is_there_with_a_fix() -> None:
    assert {check.id for check in suite.CHECKS} == MISSION
    assert all(check.fix for check in suite.CHECKS)


@pytest.mark.parametrize(("scale", "runs"), [(None, True), ("h200-1b-ddp8", False)])
def test_fsdp_is_not_asked_of_a_preset_that_trains_with_ddp(scale: str | None, runs: bool) -> None:
    [check] = (check for check in suite.CHECKS if check.id == "fsdp_dry_run")
    preset = suite.preset_of(scale)
    assert check.concerns(preset) is runs
    assert all(other.concerns(preset) for other in suite.CHECKS if other is not check)
    if preset is not None:
        shared = preset.resources.model_copy(update={"distributed_strategy": "fsdp"})
        assert check.concerns(preset.model_copy(update={"resources": shared}))


def test_a_check_that_does_not_concern_the_preset_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    never = suite.Check(id="never", run=bad, fix="mend", concerns=lambda preset: preset is None)
    monkeypatch.setattr(suite, "CHECKS", (never, suite.Check(id="always", run=good, fix="mend")))
    report = suite.run_suite(suite.Options(out_dir=tmp_path, device="cpu", capacity_scale="smoke"))
    assert [check.id for check in report.checks] == ["always"]


def test_a_skipped_check_is_not_counted_as_passed(with_checks: Callable[..., None], tmp_path: Path) -> None:
    with_checks(one=good, two=unknown, three=good)
    report = suite.run_suite(suite.Options(out_dir=tmp_path, device="cpu"))
    assert report.summary == "2 passed, 0 failed, 1 skipped (two: needs CUDA)"
    assert report.is_good(strict=False) and not report.is_good(strict=True)
    assert [check.fix for check in report.checks] == ["", "mend two", ""]


def test_a_check_that_breaks_fails_and_the_others_go_on(
    with_checks: Callable[..., None], tmp_path: Path
) -> None:
    with_checks(one=broken, two=bad, three=good)
    report = suite.run_suite(suite.Options(out_dir=tmp_path, device="cpu"))
    assert [check.status for check in report.checks] == [CheckStatus.FAIL, CheckStatus.FAIL, CheckStatus.PASS]
    assert report.checks[0].message == "the check broke: KeyError: 'lost'"
    assert report.summary == "1 passed, 2 failed (one, two), 0 skipped"


def test_both_reports_say_what_was_measured_and_what_would_mend_it(
    with_checks: Callable[..., None], tmp_path: Path
) -> None:
    with_checks(one=bad)
    suite.run_suite(suite.Options(out_dir=tmp_path, device="cpu", capacity_scale="smoke"))
    report = json.loads((tmp_path / suite.REPORT).read_text())
    assert report["checks"][0] | {"seconds": 0} == {
        "id": "one",
        "status": "fail",
        "measured": 2.0,
        "limit": "<= 1",
        "message": "too | much",
        "fix": "mend one",
        "seconds": 0,
    }
    assert report["options"]["capacity_scale"] == "smoke"
    assert report["environment"]["torch"] == torch.__version__
    text = (tmp_path / suite.REPORT_MD).read_text()
    assert "| one | **fail** | 2 | <= 1 |" in text and "too \\| much" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["preh100_sanity.json", "preh100_sanity.md"]


@pytest.mark.parametrize(
    ("check", "options", "expected"),
    [
        (good, [], ClientExit.OK),
        (bad, [], ClientExit.GATE_BLOCKED),
        (unknown, [], ClientExit.OK),
        (unknown, ["--strict"], ClientExit.GATE_BLOCKED),
    ],
)
def test_the_command_exits_2_where_a_check_failed(
    with_checks: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    check: Finish,
    options: list[str],
    expected: ClientExit,
) -> None:
    with_checks(one=check)
    out = tmp_path / "out"
    assert main(["sanity", "preh100", "--device", "cpu", "--out-dir", str(out), *options]) == expected
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(out / suite.REPORT_MD)
    assert "passed" in printed.out and printed.err.startswith("one ")


def test_json_is_the_report_alone(
    with_checks: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_checks(one=good)
    assert main(["sanity", "preh100", "--device", "cpu", "--out-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / suite.REPORT).read_text())


def test_the_matmul_precision_holds_for_the_checks_alone(
    with_checks: Callable[..., None], tmp_path: Path
) -> None:
    seen: list[str] = []

    def look(setup: Setup) -> Finding:
        seen.append(torch.get_float32_matmul_precision())
        return good(setup)

    with_checks(one=look)
    before = torch.get_float32_matmul_precision()
    options = ["--out-dir", str(tmp_path), "--device", "cpu", "--matmul-precision", "medium"]
    assert main(["sanity", "preh100", *options]) == 0
    assert (seen, torch.get_float32_matmul_precision()) == (["medium"], before)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--capacity-scale", "h100-1000m"], "invalid_value"),
        (["--device", "cuda"], "device_unavailable"),
        (["--capacity-min-free-fraction", "1.5"], "usage"),
    ],
)
def test_bad_options_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: str
) -> None:
    if torch.cuda.is_available() and code == "device_unavailable":
        pytest.skip("there is a CUDA device")
    assert main(["sanity", "preh100", "--out-dir", str(tmp_path), *options]) == ClientExit.USAGE
    assert capsys.readouterr().err.startswith(f"error [{code}]")
