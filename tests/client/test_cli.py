import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from picochat_contract.exit_codes import ClientExit
from picochat_contract.gate import Verdict
from picochat_contract.states import Cause, RunState

from .fake_server import FakeServer
from .scripted import URL, Script, problem

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "demo.yaml"
    path.write_text("name: demo\nscale: smoke\n")
    return str(path)


@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        (Script(verdict=Verdict.APPROVED), ["--strict"], ClientExit.OK),
        (Script(RunState.FAILED, None, cause=Cause.CRASH), [], ClientExit.RUN_FAILED),
        (Script(verdict=Verdict.BLOCKED), [], ClientExit.GATE_BLOCKED),
        (Script(verdict=Verdict.WARN), ["--strict"], ClientExit.GATE_WARN),
        (Script(verdict=Verdict.WARN), [], ClientExit.OK),
        (Script(RunState.FAILED, None, cause=Cause.LOST, num_attempts=3), [], ClientExit.LOST),
        (Script(RunState.CANCELLED, None), [], ClientExit.CANCELLED),
        (Script(verdict=None), ["--set", "gate.profile=none"], ClientExit.OK),
    ],
)
def test_submit_wait_exits_by_the_outcome(
    cli: Cli, server: FakeServer, spec: str, script: Script, options: list[str], expected: ClientExit
) -> None:
    server.script = script
    code, out, _ = cli("submit", spec, "--wait", *options)
    assert code == expected
    assert out.rstrip().endswith(f"exit {expected.value} ({expected.name.lower()})")
    code, out, _ = cli("submit", spec, "--wait", "--json", *options)
    answer = json.loads(out)
    assert code == answer["exit_code"] == expected
    assert answer["run"]["id"] == "run_2"


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "missing.yaml"],
        ["submit", "bad.yaml"],
        ["submit", "demo.yaml", "--set", "bse.x=1"],
        ["sbmit", "demo.yaml"],
        ["runs", "--state", "lazy"],
        ["runs", "--limit", "0"],
        ["show", "run_none"],
        ["gate", "run_none"],
        ["get", "run_none"],
        ["get", "run_1", "../../etc/passwd"],
        ["--key", "wrong", "runs"],
        ["--url", "nonsense", "runs"],
        ["keys"],
        ["keys", "create", "ci", "--scope", "everything"],
        ["release", "Bad Name", "run_1"],
    ],
)
def test_usage_errors_exit_64_with_one_line(
    cli: Cli, server: FakeServer, spec: str, arguments: list[str]
) -> None:
    server.add_run()
    Path("bad.yaml").write_text("bse: {}\n")
    code, out, err = cli(*arguments)
    assert (code, out) == (ClientExit.USAGE, "")
    assert err.startswith("error [")
    assert len(err.splitlines()) == 1


def test_a_wrong_scope_exits_64_and_names_the_code(cli: Cli, server: FakeServer) -> None:
    server.fail(problem(403, "forbidden_scope", "this key lacks the scope admin"))
    code, _, err = cli("keys", "list")
    assert (code, err) == (64, "error [forbidden_scope]: this key lacks the scope admin\n")


@pytest.mark.parametrize("wrong", [httpx.ConnectError, httpx.Response(503)])
def test_an_unreachable_server_exits_75(
    cli: Cli, server: FakeServer, spec: str, wrong: httpx.Response | type[httpx.TransportError]
) -> None:
    server.fail(*[wrong] * 100)
    assert cli("submit", spec, "--wait", "--timeout", "0")[0] == ClientExit.UNREACHABLE
    assert cli("--timeout", "0", "runs")[0] == ClientExit.UNREACHABLE


def test_a_server_that_goes_away_while_waiting_exits_75_and_says_how_to_go_on(
    cli: Cli, server: FakeServer, spec: str
) -> None:
    server.drops_left, server.reveal_by_list = 1, 0

    def go_away(request: httpx.Request) -> None:
        if server.num_drops:
            raise httpx.ConnectError("gone", request=request)

    server.faults.append(go_away)
    code, _, err = cli("submit", spec, "--wait", "--timeout", "0")
    assert code == ClientExit.UNREACHABLE
    assert "picochat-client wait run_1" in err


def test_submit_prints_the_id_alone_on_stdout(cli: Cli, server: FakeServer, spec: str) -> None:
    code, out, err = cli("submit", spec, "--name", "123")
    assert (code, out) == (0, "run_1\n")
    assert f"{URL}/runs/run_1" in err
    assert server.runs["run_1"].spec.name == "123"


def test_submit_with_one_idempotency_key_makes_one_run(cli: Cli, server: FakeServer, spec: str) -> None:
    outs = {cli("submit", spec, "--idempotency-key", "build-7")[1] for _ in range(2)}
    assert outs == {"run_1\n"}


def test_the_report_names_what_a_newcomer_needs(cli: Cli, server: FakeServer, spec: str) -> None:
    server.script = Script(verdict=Verdict.BLOCKED)
    _, out, err = cli("submit", spec, "--wait")
    for wanted in (
        "skill_release_eval_spelling",
        "0.125 n=40",
        "0.055 to 0.261",
        ">= 0.4",
        "base sample",
        "SFT sample",
        f"{URL}/runs/run_1",
        "picochat up",
        "picochat-client get run_1 sft/checkpoint/",
        "picochat chat --checkpoint",
    ):
        assert wanted in out, wanted
    assert "base      succeeded in 0:09" in err


def test_the_report_shows_bits_per_byte_beside_the_unigram_baseline(
    cli: Cli, server: FakeServer, spec: str
) -> None:
    cli("submit", spec)
    numbers: dict[str, Any] = {"val_tokens": 1, "num_nonfinite_steps": 0, "canary_count": 0, "canary_hits": 0}
    none = {"num_examples": 0, "num_passed": 0, "pass_rate": 0.0, "low": 0.0, "high": 1.0}
    numbers |= {"exposure_bits": None, "control_exposure_bits": None}
    numbers |= {"extractable": none, "extractable_heldout": none}
    report = {"subject": "x", "val_bpb": 2.5, "unigram_bpb": 5.0, "num_parameters": 1, "tokens_seen": 1}
    report["split_mode"] = "document"
    server.runs["run_1"].artifacts["base/train_report.json"] = json.dumps(report | numbers).encode()
    _, out, _ = cli("wait", "run_1")
    assert "2.500 bits per byte, unigram baseline 5.000 (0.50 of it)" in out


def test_no_line_of_the_report_table_is_wider_than_the_terminal(
    cli: Cli, server: FakeServer, spec: str
) -> None:
    server.script = Script(verdict=Verdict.BLOCKED)
    _, out, _ = cli("submit", spec, "--wait")
    table = out[: out.index("this run ")]
    assert max(len(line) for line in table.splitlines()) <= 80
    assert "skill_release_eval_spelling" in table  # not folded


def test_text_of_a_model_cannot_steer_the_terminal(cli: Cli, server: FakeServer, spec: str) -> None:
    _, out, err = cli("submit", spec, "--wait")
    logs = cli("logs", "run_1")[1]
    assert "[bold]not markup[/bold]" in out
    for text in (out, err, logs, cli("events", "run_1")[1]):
        assert not set(text) & {"\x1b", "\x07", "\u2028"}


def test_logs_and_events_print_one_line_each(cli: Cli, server: FakeServer, spec: str) -> None:
    cli("submit", spec, "--wait")
    run = server.runs["run_1"]
    assert [json.loads(line)["seq"] for line in cli("events", "run_1", "--json")[1].splitlines()] == list(
        range(1, len(run.events) + 1)
    )
    assert len(cli("events", "run_1", "--after", "10", "-f")[1].splitlines()) == len(run.events) - 10
    assert len(cli("logs", "run_1", "-f", "--stage", "sft", "--json")[1].split("\n")) == 2
    assert "base said" in cli("logs", "run_1")[1]


def test_show_and_runs_and_gate_tell_the_state(cli: Cli, server: FakeServer, spec: str) -> None:
    server.script = Script(verdict=Verdict.WARN)
    cli("submit", spec, "--wait")
    assert "succeeded, verdict warn" in cli("show", "run_1")[1]
    assert json.loads(cli("show", "run_1", "--json")[1])["verdict"] == "warn"
    assert "run_1" in cli("runs")[1]
    assert [run["id"] for run in json.loads(cli("runs", "--limit", "1", "--json")[1])] == ["run_1"]
    assert cli("gate", "run_1")[0] == 0
    assert cli("gate", "run_1", "--strict", "--json")[0] == ClientExit.GATE_WARN


def test_gate_exits_2_on_a_blocked_run_and_64_before_there_is_a_verdict(cli: Cli, server: FakeServer) -> None:
    run = server.add_run(script=Script(verdict=Verdict.BLOCKED))
    assert cli("gate", run.id)[0] == ClientExit.USAGE
    run.visible = len(run.events)
    assert cli("gate", run.id)[0] == ClientExit.GATE_BLOCKED


def test_cancel_exits_0_once_the_run_is_cancelled(cli: Cli, server: FakeServer) -> None:
    server.add_run()
    assert cli("cancel", "run_1", "--wait")[:2] == (0, "run run_1 cancelled\n")


def test_schema_is_printed_without_a_server(cli: Cli) -> None:
    code, out, _ = cli("schema")
    found = json.loads(out)
    assert code == 0
    assert (found["title"], found["additionalProperties"]) == ("picochat run spec", False)
    assert {"dataset", "base", "sft", "gate"} <= found["properties"].keys()


def test_checkpoint_asks_the_server(cli: Cli, server: FakeServer) -> None:
    server.add_run()
    assert cli("checkpoint", "run_1")[0] == 0
    assert server.calls("POST", "/runs/run_1/checkpoint")


def test_get_writes_one_file_or_a_folder(cli: Cli, server: FakeServer) -> None:
    server.add_run().artifacts = {
        "sft/checkpoint/config.json": b"{}",
        "sft/sample.txt": b"hi",
        "summary.md": b"#",
    }
    assert cli("get", "run_1", "summary.md")[0] == 0
    assert Path("summary.md").read_bytes() == b"#"
    assert cli("get", "run_1", "sft/sample.txt", "-o", "said.txt")[0] == 0
    assert Path("said.txt").read_bytes() == b"hi"
    _, out, _ = cli("get", "run_1", "sft/checkpoint/", "-o", "models/x", "--json")
    assert json.loads(out)[0]["file"] == "models/x/sft/checkpoint/config.json"
    assert cli("get", "run_1", "--all", "-o", "all")[0] == 0
    assert len([path for path in Path("all").rglob("*") if path.is_file()]) == 3
    assert "summary.md" in cli("artifacts", "run_1")[1]


def test_a_corrupt_download_writes_nothing_and_is_an_error(cli: Cli, server: FakeServer) -> None:
    run = server.add_run()
    run.artifacts = {"summary.md": b"#"}

    def change(request: httpx.Request) -> None:
        if request.url.path.endswith("summary.md"):
            run.artifacts["summary.md"] = b"!"

    server.faults.append(change)
    code, _, err = cli("get", "run_1", "summary.md")
    assert code != 0
    assert "digest_mismatch" in err
    assert not Path("summary.md").exists()


def test_keys_releases_and_workers(cli: Cli, server: FakeServer) -> None:
    run = server.add_run()
    code, out, err = cli("keys", "create", "ci", "--scope", "runs:read", "--scope", "infer")
    assert (code, out) == (0, "pk_new\n")
    assert "only time" in err
    assert "runs:read" in cli("keys", "list")[1]
    assert cli("keys", "revoke", "key_1")[1] == "key key_1 revoked\n"
    assert "released tiny version 1" in cli("release", "tiny", run.id)[1]
    assert cli("releases")[1] == "none\n"
    assert "idle" in cli("workers")[1]


def test_version_and_help_need_no_server(cli: Cli, server: FakeServer) -> None:
    assert cli("--version")[1].startswith("picochat-client ")
    assert "Exit codes" in cli()[1]
    assert "--strict" in cli("submit", "--help")[1]
    assert server.requests == []
