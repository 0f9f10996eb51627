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
from picochat_trainer import local_run
from picochat_trainer.commands import shown_run
from support.in_process import run_stage_here

DATA_ONLY = ["--until", "tokenizer", "--set", "dataset.sft_rows=32", "--set", "dataset.eval_rows=16"]


@pytest.fixture(autouse=True)
def stages_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only stages without torch are run here; test_local_run.py runs some in processes of their own."""
    monkeypatch.setattr(local_run, "run_stage", run_stage_here)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "my_text.txt"
    path.write_text("".join(f"{n} quick brown foxes jump over the lazy dog.\n" for n in range(60)))
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
    for stage in ("dataset", "honesty", "preflight", "tokenizer"):
        assert f"{stage:<9}  succeeded" in printed
    assert "preflight warn" in printed
    assert (out / "corpus.txt").read_text().strip() == text.read_text().strip()
    spec = spec_of(out)
    assert spec["name"] == "out" and spec["scale"] == "demo"
    assert {spec[stage]["seed"] for stage in ("dataset", "base", "sft", "fit", "eval")} == {7}


def test_a_second_call_shows_cached(out: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert tiny(out, *DATA_ONLY, "--input", str(text)) == ClientExit.OK
    assert capsys.readouterr().out.count("cached") == 4


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
    assert base["device_batch_size"] == 8  # from the preset


def test_a_limit_in_minutes_is_that_of_base(out: Path, text: Path) -> None:
    assert tiny(out, "--until", "dataset", "--input", str(text), "--max-minutes", "0.5") == ClientExit.OK
    spec = spec_of(out)
    assert (spec["base"]["max_minutes"], spec["sft"]["max_minutes"]) == (0.5, None)


def test_a_folder_for_tensorboard_switches_it_on(out: Path, text: Path) -> None:
    options = ["--until", "dataset", "--input", str(text)]
    for more, expected in (([], False), (["--tensorboard-log-dir", str(out / "board")], True)):
        assert tiny(out, *options, *more) == ClientExit.OK
        spec = spec_of(out)
        assert spec["base"]["tensorboard"] is spec["sft"]["tensorboard"] is expected


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
        (["--max-minutes", "0"], "invalid_value", "max_minutes"),
        (["--no-such-option"], "usage", "--no-such-option"),
        (["--external-eval", "arc"], "invalid_value", "expected name=path"),
        (["--external-eval", "../arc=x.jsonl"], "invalid_value", "expected name=path"),
        (["--external-eval", "arc=/no/such/file"], "corpus_missing", "/no/such/file"),
        (["--dpo-input", "/no/such/file"], "corpus_missing", "/no/such/file"),
        (["--dataset-pack", "/no/such/file"], "file_unreadable", "/no/such/file"),
        (["--dataset-pack", "a.json", "--corpus-recipe", "b.json"], "invalid_value", "give one of them"),
        (["--preflight-only", "--until", "dataset"], "invalid_value", "comes before preflight"),
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
    monkeypatch.setattr(shown_run, "LocalRun", Finished)
    path = out / "gate/gate_report.json"
    path.parent.mkdir(parents=True)
    path.write_text(report(verdict).model_dump_json())
    assert tiny(out, *(["--strict"] if strict else [])) == expected
    printed = capsys.readouterr().out
    assert f"gate research v1: {verdict}" in printed
    assert ("blocked by base_bpb" in printed) is (verdict is Verdict.BLOCKED)


def test_strict_counts_a_gate_without_a_report_as_blocked(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_run, "LocalRun", Finished)
    assert tiny(out, "--strict") == ClientExit.GATE_BLOCKED
    assert tiny(out, "--strict", "--gate", "none") == ClientExit.OK


def test_files_of_a_spec_start_at_its_folder(out: Path, text: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("scale: smoke\nuntil: dataset\ndataset: {sources: [{type: file, path: my_text.txt}]}\n")
    assert tiny(out, "--spec", str(spec)) == ClientExit.OK
    assert (out / "corpus.txt").read_text() == text.read_text()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


CHAT = [{"user": f"Question {n}?", "assistant": "It is so."} for n in range(40)]
ITEMS = [{"user": f"What is number {n}?", "must_include": [str(n)]} for n in range(20)]
LEAK = {"user": "question 7", "must_include": ["so"]}


def test_preflight_only_prints_what_does_not_pass_and_trains_nothing(
    out: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny(out, "--scale", "smoke", "--input", str(text), "--preflight-only") == ClientExit.OK
    printed = capsys.readouterr().out
    assert "corpus_model_fit" in printed and "preflight warn" in printed
    assert "external_eval" in printed, "it judges the whole run that would follow"
    assert not (out / "tokenizer.json").exists()


@pytest.mark.parametrize("options", [[], ["--preflight-only"], ["--strict"]])
def test_a_blocked_preflight_is_exit_2_with_the_reason(
    out: Path, text: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    chat = write_rows(tmp_path / "chat.jsonl", CHAT)
    items = write_rows(tmp_path / "eval.jsonl", [*ITEMS, LEAK])
    files = ["--input", str(text), "--chat-input", str(chat), "--eval-input", str(items)]
    call = ["--scale", "smoke", "--gate", "research", *files, *options]
    assert tiny(out, *call) == ClientExit.GATE_BLOCKED
    captured = capsys.readouterr()
    assert "1 eval prompts among SFT rows" in " ".join(captured.out.split())
    assert "preflight blocked" in captured.out
    assert ("stopped before tokenizer" in captured.err) is ("--preflight-only" not in options)


def test_a_waived_block_is_shown_with_its_setting(
    out: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = write_rows(tmp_path / "chat.jsonl", CHAT)
    items = write_rows(tmp_path / "eval.jsonl", [*ITEMS, LEAK])
    files = ["--input", str(text), "--chat-input", str(chat), "--eval-input", str(items)]
    call = ["--scale", "smoke", "--gate", "research", *files, "--allow-leaky-eval", "--preflight-only"]
    assert tiny(out, *call) == ClientExit.OK
    assert "waived by preflight.allow_leaky_eval" in " ".join(capsys.readouterr().out.split())
    assert spec_of(out)["preflight"]["allow_leaky_eval"] is True


@pytest.mark.parametrize("name", ["unsafe_long_run", "default_tuning_data"])
def test_other_waivers_are_options_too(out: Path, text: Path, name: str) -> None:
    option = f"--allow-{name.replace('_', '-')}"
    assert tiny(out, "--until", "dataset", "--input", str(text), option) == ClientExit.OK
    assert spec_of(out)["preflight"][f"allow_{name}"] is True


def test_data_options_become_the_dataset_section(out: Path, text: Path, tmp_path: Path) -> None:
    preferences = write_rows(
        tmp_path / "preferences.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}]
    )
    benchmark = write_rows(tmp_path / "arc.jsonl", ITEMS)
    options = ["--dpo-input", str(preferences), "--external-eval", f"arc={benchmark}"]
    assert tiny(out, "--until", "dataset", "--input", str(text), *options) == ClientExit.OK
    dataset = spec_of(out)["dataset"]
    assert dataset["preferences"]["path"] == str(preferences)
    assert dataset["external"]["arc"]["path"] == str(benchmark)


def test_single_files_win_over_a_pack_and_a_pack_over_the_spec(out: Path, text: Path, tmp_path: Path) -> None:
    chat = write_rows(tmp_path / "chat.jsonl", CHAT)
    items = write_rows(tmp_path / "eval.jsonl", ITEMS)
    other = write_rows(tmp_path / "other.jsonl", ITEMS)
    pack = tmp_path / "pack.json"
    pack.write_text(
        json.dumps({"name": "mine", "corpus": {"input": text.name}, "chat": chat.name, "eval": items.name})
    )
    spec = tmp_path / "spec.yaml"
    spec.write_text("scale: smoke\nuntil: dataset\ndataset: {sft_rows: 40, sources: [{type: pydoc}]}\n")
    options = ["--spec", str(spec), "--dataset-pack", str(pack), "--eval-input", str(other)]
    assert tiny(out, *options) == ClientExit.OK
    dataset = spec_of(out)["dataset"]
    assert [source["path"] for source in dataset["sources"]] == [str(text)]
    assert (dataset["chat"]["path"], dataset["eval"]["path"]) == (str(chat), str(other))
    assert dataset["sft_rows"] == 40


def test_a_recipe_is_a_corpus(out: Path, text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"name": "mix", "sources": [{"path": text.name, "weight": 2}]}))
    assert tiny(out, "--until", "dataset", "--corpus-recipe", str(recipe)) == ClientExit.OK
    (source,) = spec_of(out)["dataset"]["sources"]
    assert (source["path"], source["weight"]) == (str(text), 2)


def test_the_commands_import_no_torch() -> None:
    code = (
        "import sys; import picochat_trainer.commands.run, picochat_trainer.commands.train; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
