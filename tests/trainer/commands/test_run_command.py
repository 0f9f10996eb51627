"""`picochat run tiny` as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from picochat_client.program import main
from picochat_contract.exit_codes import ClientExit
from picochat_contract.gate import Check, CheckStatus, GateReport, Verdict
from picochat_trainer.commands import run

DATA_ONLY = ["--until", "tokenizer", "--set", "dataset.sft_rows=32", "--set", "dataset.eval_rows=16"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "my_text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog.\n" * 60)
    return path


def tiny(out: Path, *options: str) -> int:
    return main(["run", "tiny", "--out-dir", str(out), *options])


def spec_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "run_spec.json").read_text()))


def test_it_runs_the_stages_and_prints_what_they_measured(
    out: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny(out, *DATA_ONLY, "--input", str(text), "--seed", "7") == ClientExit.OK
    printed = capsys.readouterr().out
    assert "dataset    succeeded" in printed and "tokenizer  succeeded" in printed
    assert (out / "corpus.txt").read_text() == text.read_text()
    spec = spec_of(out)
    assert spec["name"] == "out" and spec["scale"] == "demo"
    assert {spec[stage]["seed"] for stage in ("dataset", "base", "sft", "fit", "eval")} == {7}


def test_a_second_call_shows_cached(out: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert tiny(out, *DATA_ONLY, "--input", str(text)) == ClientExit.OK
    assert capsys.readouterr().out.count("cached") == 2


def test_results_of_an_earlier_call_are_not_shown_as_those_of_this_one(
    out: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder may still hold the samples and the verdict of other weights."""
    for name in ("base/sample.txt", "sft/sample.txt", "gate/gate_report.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("left behind")
    (out / "gate/gate_report.json").write_text(report(Verdict.APPROVED).model_dump_json())
    assert tiny(out, *DATA_ONLY, "--input", str(text)) == ClientExit.OK
    printed = capsys.readouterr().out
    assert "left behind" not in printed and "approved" not in printed


def test_options_win_over_the_spec_file(out: Path, text: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("scale: smoke\nuntil: tokenizer\nbase: {max_steps: 11, seed: 3}\n")
    options = [
        "--spec",
        str(spec),
        "--input",
        str(text),
        "--base-max-steps",
        "12",
        "--set",
        "base.log_every=2",
    ]
    assert tiny(out, *options) == ClientExit.OK
    base = spec_of(out)["base"]
    assert (base["max_steps"], base["seed"], base["log_every"]) == (12, 3, 2)
    assert base["device_batch_size"] == 4  # from the preset


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--set", "base.max_step=1"], "unknown_key", "did you mean 'max_steps'"),
        (["--set", "base.max_steps"], "invalid_value", "key=value"),
        (["--set", "base.max_steps.x=1", "--base-max-steps", "3"], "invalid_value", "not a section"),
        (["--set", "base.seed=[1"], "not_yaml", "not valid YAML"),
        (["--scale", "dmeo"], "invalid_value", "did you mean 'demo'"),
        (["--spec", "/no/such/file"], "file_unreadable", "/no/such/file"),
        (["--input", "/no/such/file"], "corpus_missing", "/no/such/file"),
        (["--set", "base.model.n_embd=130", "--set", "base.model.n_head=4"], "invalid_shape", "divisible"),
        (["--no-such-option"], "usage", "--no-such-option"),
    ],
)
def test_a_wrong_call_is_exit_64_with_a_code(
    out: Path, options: list[str], code: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny(out, *options) == ClientExit.USAGE
    error = capsys.readouterr().err
    assert f"error [{code}]" in error and says in error


@pytest.mark.parametrize(("content", "code"), [("[1, 2]", "not_yaml"), ("a: [", "not_yaml")])
def test_a_spec_that_is_no_mapping_is_refused(
    out: Path, tmp_path: Path, content: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(content)
    assert tiny(out, "--spec", str(spec)) == ClientExit.USAGE
    assert f"error [{code}]" in capsys.readouterr().err


def test_a_failed_stage_is_exit_1_and_says_why(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    assert tiny(out, *DATA_ONLY, "--input", str(tmp_path / "binary.txt")) == ClientExit.RUN_FAILED
    assert "dataset failed: file_unreadable" in capsys.readouterr().err


def report(verdict: Verdict) -> GateReport:
    status = {
        Verdict.APPROVED: CheckStatus.PASS,
        Verdict.WARN: CheckStatus.WARN,
        Verdict.BLOCKED: CheckStatus.BLOCK,
    }
    check = Check(
        id="base_bpb",
        status=status[verdict],
        measured=1.0,
        threshold=0.9,
        comparison="<",
        message="not below",
        fix="train longer",
    )
    return GateReport(
        policy="research",
        policy_version=1,
        policy_digest="d",
        subject="s",
        verdict=verdict,
        checks=(check,),
        evidence=(),
    )


class Finished:
    """A local run whose stages all succeed at once."""

    def __init__(self, run_dir: Path, **settings: Any) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)

    def run(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("verdict", "strict", "expected"),
    [
        (Verdict.APPROVED, True, ClientExit.OK),
        (Verdict.BLOCKED, False, ClientExit.OK),
        (Verdict.BLOCKED, True, ClientExit.GATE_BLOCKED),
        (Verdict.WARN, False, ClientExit.OK),
        (Verdict.WARN, True, ClientExit.GATE_WARN),
    ],
)
def test_only_strict_turns_the_verdict_into_an_exit_code(
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: Verdict,
    strict: bool,
    expected: ClientExit,
) -> None:
    monkeypatch.setattr(run, "LocalRun", Finished)
    path = out / "gate/gate_report.json"
    path.parent.mkdir(parents=True)
    path.write_text(report(verdict).model_dump_json())
    assert tiny(out, *(["--strict"] if strict else [])) == expected
    printed = capsys.readouterr().out
    assert f"gate research v1: {verdict}" in printed
    assert ("blocked by base_bpb" in printed) is (verdict is Verdict.BLOCKED)


def test_strict_counts_a_gate_without_a_report_as_blocked(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LocalRun", Finished)
    assert tiny(out, "--strict") == ClientExit.GATE_BLOCKED
    assert tiny(out, "--strict", "--gate", "none") == ClientExit.OK


def test_files_of_a_spec_start_at_its_folder(out: Path, text: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("scale: smoke\nuntil: dataset\ndataset: {sources: [{type: file, path: my_text.txt}]}\n")
    assert tiny(out, "--spec", str(spec)) == ClientExit.OK
    assert (out / "corpus.txt").read_text() == text.read_text()


def test_the_commands_import_no_torch() -> None:
    code = (
        "import sys; import picochat_trainer.commands.run, picochat_trainer.commands.train; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
