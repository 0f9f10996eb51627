"""Datasets from this machine to the server, and what the server says of them; through SDK and command line."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from picochat_client import Client, NotFound, _transfer
from picochat_client.datasets import dataset_section, local_files, parse_reference
from picochat_contract.errors import Code, SpecError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.states import Cause, RunState

from .fake_server import FakeServer
from .scripted import FakeRun, Script

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name, text in {"docs/a.md": "# a", "docs/b.txt": "b", "chat.jsonl": "c", "eval.jsonl": "e"}.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "pack.json"
    path.write_text(
        json.dumps(
            {"corpus": "docs", "chat": "chat.jsonl", "eval": "eval.jsonl", "external": {"arc": "eval.jsonl"}}
        )
    )
    return path


def roles(client: Client, name: str) -> list[tuple[str, str]]:
    return [(file.role, file.path) for file in client.datasets.find(name).files]


# --- push ---


def test_a_pack_is_pushed_with_each_file_in_its_role(client: Client, pack: Path) -> None:
    pushed = client.datasets.push("docs", local_files(pack), license="MIT", description="notes")
    assert pushed.is_new
    assert (pushed.dataset.kind, pushed.dataset.license, pushed.dataset.version) == ("pack", "MIT", 1)
    assert roles(client, "docs") == [
        ("corpus", "a.md"),
        ("corpus", "b.txt"),
        ("chat", "chat.jsonl"),
        ("eval", "eval.jsonl"),
        ("external", "eval.jsonl"),
    ]
    assert pushed.dataset.files[-1].label == "arc"


def test_pushing_again_sends_no_bytes_and_makes_no_version(
    client: Client, server: FakeServer, pack: Path
) -> None:
    first = client.datasets.push("docs", local_files(pack)).dataset
    server.requests.clear()
    again = client.datasets.push("docs", local_files(pack))
    assert (again.is_new, again.dataset) == (False, first)
    assert {request.method for request in server.requests} == {"POST"}


@pytest.mark.parametrize("kind", ["chat", "eval", "preferences"])
def test_kind_says_what_one_file_is(client: Client, pack: Path, kind: str) -> None:
    files = local_files(pack.parent / "chat.jsonl", kind=kind)  # type: ignore[arg-type]
    assert client.datasets.push("rows", files).dataset.kind == kind


def test_an_external_benchmark_is_called_as_the_dataset(client: Client, pack: Path) -> None:
    files = local_files(pack.parent / "eval.jsonl", kind="external", name="arc")
    assert client.datasets.push("arc", files).dataset.files[0].label == "arc"


def test_progress_is_over_all_files_and_a_cut_upload_goes_on(
    client: Client, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "PART_BYTES", 10)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_bytes(b"a" * 35)
    (tmp_path / "docs" / "b.txt").write_bytes(b"b" * 5)
    broken: list[httpx.Request] = []

    def break_once(request: httpx.Request) -> None:
        if request.method == "PATCH" and request.headers["Upload-Offset"] == "10" and not broken:
            broken.append(request)
            raise httpx.ReadError("broken on purpose", request=request)

    server.faults.append(break_once)
    seen: list[tuple[int, int]] = []
    client.datasets.push(
        "docs", local_files(tmp_path / "docs"), progress=lambda done, total: seen.append((done, total))
    )
    assert {total for _, total in seen} == {40}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (seen[-1][0], len(broken)) == (40, 1)


@pytest.mark.parametrize("name", ["Docs", "", "-x", "a" * 64])
def test_a_bad_name_is_refused_before_anything_is_sent(
    client: Client, server: FakeServer, pack: Path, name: str
) -> None:
    with pytest.raises(SpecError):
        client.datasets.push(name, local_files(pack))
    assert server.requests == []


def test_what_is_not_there_cannot_be_pushed(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        local_files(tmp_path / "none")
    assert caught.value.code is Code.CORPUS_MISSING


# --- names ---


def test_a_reference_names_the_newest_or_one_version() -> None:
    assert (parse_reference("docs").version, parse_reference("docs@3").version) == (None, 3)


@pytest.mark.parametrize("text", ["docs@", "docs@x", "docs@0", "Docs", "@1", "docs@-1", "docs@1@2"])
def test_anything_else_is_no_reference(text: str) -> None:
    with pytest.raises(SpecError):
        parse_reference(text)


def test_the_section_reads_everything_of_one_version(client: Client, pack: Path) -> None:
    dataset = client.datasets.push("docs", local_files(pack)).dataset
    ref = {"type": "dataset", "name": "docs", "version": 1}
    assert dataset_section(dataset) == {"sources": [ref], "chat": ref, "eval": ref, "external": {"arc": ref}}


def test_rows_alone_leave_the_corpus_to_the_default(client: Client, pack: Path) -> None:
    chat = local_files(pack.parent / "chat.jsonl", kind="chat")
    assert list(dataset_section(client.datasets.push("rows", chat).dataset)) == ["chat"]


def test_an_unknown_name_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.datasets.find("none")


# --- the command line ---


def test_push_prints_name_and_version_alone(cli: Cli, pack: Path) -> None:
    code, out, err = cli("data", "push", str(pack), "--name", "docs")
    assert (code, out) == (0, "docs@1\n")
    assert "pack of 5 files" in err
    assert "{type: dataset, name: docs}" in err
    assert "was there already" in cli("data", "push", str(pack), "--name", "docs")[2]
    assert json.loads(cli("data", "push", str(pack), "--name", "docs", "--json")[1])["version"] == 1


def test_list_and_show(cli: Cli, pack: Path) -> None:
    cli("data", "push", str(pack), "--name", "docs", "--license", "MIT", "--description", "my notes")
    assert "docs@1" in cli("data", "list")[1]
    assert json.loads(cli("data", "list", "--json")[1])[0]["kind"] == "pack"
    _, out, _ = cli("data", "show", "docs@1")
    for wanted in ("my notes", "MIT", "chat.jsonl", "arc"):
        assert wanted in out
    assert len(json.loads(cli("data", "show", "docs", "--json")[1])["files"]) == 5
    assert cli("data", "show", "docs@2")[0] == ClientExit.USAGE


def test_preview_runs_the_dataset_stage_and_prints_its_report(
    cli: Cli, server: FakeServer, pack: Path
) -> None:
    cli("data", "push", str(pack), "--name", "docs")
    report = b"# Corpus\n3 documents"
    manifest = b'{"stats": {"num_documents": 3}, "documents": [1, 2, 3]}'

    def write(request: httpx.Request) -> None:
        for run in server.runs.values():
            run.artifacts = {"corpus_report.md": report, "corpus_manifest.json": manifest}

    server.faults.append(write)
    code, out, err = cli("data", "preview", "docs@1")
    assert (code, out) == (0, "# Corpus\n3 documents\n")
    assert "run run_1 submitted" in err
    body = server.runs["run_1"].body
    assert body["until"] == "dataset"
    assert body["dataset"]["chat"] == {"type": "dataset", "name": "docs", "version": 1}
    found = json.loads(cli("data", "preview", "docs", "--json")[1])
    assert (found["exit_code"], found["corpus"]) == (0, {"stats": {"num_documents": 3}})


def test_a_preview_that_fails_says_why(cli: Cli, server: FakeServer, pack: Path) -> None:
    cli("data", "push", str(pack), "--name", "docs")
    server.script = Script(RunState.CANCELLED, None)
    assert cli("data", "preview", "docs")[0] == ClientExit.CANCELLED
    assert json.loads(cli("data", "preview", "docs", "--json")[1])["outcome"] == "cancelled"


def test_honesty_of_sound_data_exits_0_or_3_where_strict(cli: Cli, server: FakeServer, pack: Path) -> None:
    cli("data", "push", str(pack), "--name", "docs")
    code, out, _ = cli("data", "honesty", "docs")
    assert code == 0
    assert "honesty ready: none of 60 eval items" in out
    assert "corpus_size" in out
    assert cli("data", "honesty", "docs", "--strict")[0] == ClientExit.GATE_WARN
    assert server.runs["run_1"].body["until"] == "preflight"


def test_honesty_of_leaky_data_exits_2_with_findings_and_fixes(
    cli: Cli, server: FakeServer, pack: Path
) -> None:
    cli("data", "push", str(pack), "--name", "docs")
    server.script = Script(RunState.BLOCKED, None)
    code, out, _ = cli("data", "honesty", "docs")
    assert code == ClientExit.GATE_BLOCKED
    for wanted in ("eval:7", "sft:31", "remove sft:31", "not checked", "2 more findings", "exit 2"):
        assert wanted in out
    assert "remove the leaked rows" in " ".join(out.split())
    assert "\x1b" not in out
    found = json.loads(cli("data", "honesty", "docs", "--json")[1])
    assert (found["exit_code"], found["preflight"]["report"]["status"]) == (2, "blocked")
    assert found["honesty"]["report"]["findings"][0]["fix"] == "remove sft:31"


def test_honesty_of_a_spec_uploads_its_files_and_judges_its_plan(
    cli: Cli, server: FakeServer, pack: Path
) -> None:
    spec = pack.parent / "spec.yaml"
    spec.write_text("scale: smoke\nname: mine\ndataset:\n  pack: pack.json\n")
    assert cli("data", "honesty", "--spec", str(spec), "--set", "base.max_steps=7")[0] == 0
    body = server.runs["run_1"].body
    assert (body["until"], body["name"], body["base"]) == ("preflight", "mine", {"max_steps": 7})
    assert body["dataset"]["chat"]["type"] == "artifact"
    assert server.blobs


def test_settings_reach_the_run_of_a_name(cli: Cli, server: FakeServer, pack: Path) -> None:
    cli("data", "push", str(pack), "--name", "docs")
    cli("data", "honesty", "docs", "--set", "scale=smoke", "--set", "dataset.min_score=20")
    body = server.runs["run_1"].body
    assert (body["scale"], body["dataset"]["min_score"], len(body["dataset"]["sources"])) == ("smoke", 20, 1)


def test_honesty_of_a_run_that_fails_exits_by_its_outcome(cli: Cli, server: FakeServer, pack: Path) -> None:
    cli("data", "push", str(pack), "--name", "docs")
    server.script = Script(RunState.CANCELLED, None, cause=Cause.CANCELLED)
    assert cli("data", "honesty", "docs")[0] == ClientExit.CANCELLED


@pytest.mark.parametrize("arguments", [[], ["docs", "--spec", "x.yaml"], ["Docs!"], ["none"]])
def test_honesty_of_nothing_or_of_two_things_is_a_usage_error(cli: Cli, arguments: list[str]) -> None:
    code, out, err = cli("data", "honesty", *arguments)
    assert (code, out) == (ClientExit.USAGE, "")
    assert len(err.splitlines()) == 1


# --- findings of a run ---


@pytest.fixture
def stopped(server: FakeServer) -> FakeRun:
    run = server.add_run(script=Script(RunState.BLOCKED, None))
    run.visible = len(run.events)
    return run


def test_wait_and_show_print_what_preflight_blocked_and_its_fix(
    cli: Cli, server: FakeServer, stopped: FakeRun
) -> None:
    code, out, err = cli("wait", stopped.id)
    assert code == ClientExit.GATE_BLOCKED
    assert out.rstrip().endswith("exit 2 (gate_blocked)")
    assert f"picochat-client honesty {stopped.id}" in out
    assert "skipped" in err
    for shown in (out, cli("show", stopped.id)[1]):
        flat = " ".join(shown.split())
        assert "3 eval prompts among SFT rows: remove the leaked rows" in flat
        assert "preflight blocked (2 checks, 1 block, 1 warn)" in flat
    answer = json.loads(cli("wait", stopped.id, "--json")[1])
    assert (answer["exit_code"], answer["gate"]) == (2, None)
    assert answer["preflight"]["report"]["checks"][0]["fix"] == "remove the leaked rows"


def test_a_run_that_ends_with_preflight_shows_what_it_found(cli: Cli, server: FakeServer) -> None:
    run = server.add_run({"scale": "smoke", "until": "preflight"}, script=Script(RunState.SUCCEEDED, None))
    run.visible = len(run.events)
    code, out, _ = cli("wait", run.id)
    assert code == ClientExit.OK
    assert "preflight warn" in out
    assert json.loads(cli("wait", run.id, "--json")[1])["preflight"]["report"]["status"] == "warn"


def test_preflight_and_honesty_of_a_run(cli: Cli, stopped: FakeRun) -> None:
    code, out, _ = cli("preflight", stopped.id)
    assert (code, "honesty" in out) == (ClientExit.GATE_BLOCKED, True)
    assert json.loads(cli("preflight", stopped.id, "--json")[1])["report"]["status"] == "blocked"
    assert "eval:7" in cli("honesty", stopped.id)[1]
    assert json.loads(cli("honesty", stopped.id, "--json")[1])["report"]["status"] == "blocked"


def test_preflight_that_only_warns_exits_0_or_3(cli: Cli, server: FakeServer) -> None:
    run = server.add_run()
    assert cli("preflight", run.id)[0] == ClientExit.USAGE, "not judged yet"
    run.visible = len(run.events)
    assert cli("preflight", run.id)[0] == 0
    assert cli("preflight", run.id, "--strict")[0] == ClientExit.GATE_WARN


def test_a_report_of_another_shape_is_named(cli: Cli, server: FakeServer, stopped: FakeRun) -> None:
    wrong = {"run": stopped.id, "sha256": "0" * 64, "report": {}, "audit_sha256": None, "audit": None}
    server.fail(httpx.Response(200, json=wrong))
    code, _, err = cli("honesty", stopped.id)
    assert code == ClientExit.USAGE
    assert "--json prints it as it is" in err
