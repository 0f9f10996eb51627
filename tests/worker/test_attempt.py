"""How each end of a stage comes home."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from picochat_contract.canonical import sha256_hex
from picochat_contract.configs import Resources
from picochat_contract.errors import Code
from picochat_contract.layout import Kind
from picochat_contract.stages import StageName
from picochat_contract.states import Cause

from .conftest import Bench, Meeting, wait_for
from .fake_server import Attempt, FakeServer

Add = Callable[..., str]


def finish_of(attempt: Attempt) -> tuple[str, Cause | None, str | None]:
    assert attempt.finish, "no finish came"
    return attempt.finish.outcome, attempt.finish.cause, attempt.finish.code


def message_of(attempt: Attempt) -> str:
    assert attempt.finish
    return attempt.finish.message or ""


def test_success_brings_outputs_logs_and_events(server: FakeServer, bench: Bench, add_stage: Add) -> None:
    add_stage("succeed")
    attempt = bench.run()
    assert finish_of(attempt) == ("succeeded", None, None)
    assert attempt.finish
    assert attempt.finish.manifest
    outputs = {output.path: output for output in attempt.finish.manifest.outputs}
    assert set(outputs) == {"corpus.txt", "stages/base/log.txt", "stages/base/events.jsonl"}
    assert server.blobs[outputs["corpus.txt"].sha256] == b"some text"
    assert b"hello from the stage" in server.blobs[outputs["stages/base/log.txt"].sha256]
    assert outputs["stages/base/log.txt"].kind == Kind.LOG
    assert list(attempt.events) == [1, 2]


def test_stored_output_is_not_sent_again(server: FakeServer, bench: Bench, add_stage: Add) -> None:
    digest = server.store(b"some text")
    add_stage("succeed")
    assert finish_of(bench.run())[0] == "succeeded"
    assert not any(seen.path.endswith(digest) for seen in server.seen)


def test_what_this_host_uploaded_is_not_downloaded_by_its_next_stage(
    server: FakeServer, bench: Bench, add_stage: Add
) -> None:
    add_stage("succeed")
    bench.run()
    add_stage("tell_inputs", inputs={"corpus.txt": b"some text"})
    assert finish_of(bench.run())[0] == "succeeded"
    assert not any(seen.method == "GET" and "/artifacts/" in seen.path for seen in server.seen)


def test_workspace_is_removed_at_the_end(bench: Bench, add_stage: Add) -> None:
    add_stage("succeed")
    bench.run()
    assert [path for path in (bench.settings.home / "attempts").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("config", "outcome"),
    [
        ({"exit_code": 1}, ("failed", Cause.CRASH, None)),
        ({"exit_code": 1, "code": "internal", "message": "boom"}, ("failed", Cause.CRASH, "internal")),
        (
            {"exit_code": 2, "code": "corpus_empty", "message": "no rows"},
            ("failed", Cause.BAD_INPUT, "corpus_empty"),
        ),
        ({"exit_code": 75}, ("interrupted", Cause.INTERRUPTED, None)),
    ],
)
def test_exit_code_is_reported(
    bench: Bench, add_stage: Add, config: dict[str, object], outcome: tuple[str, Cause, str | None]
) -> None:
    add_stage("fail", config)
    attempt = bench.run()
    assert finish_of(attempt) == outcome
    assert attempt.finish
    assert attempt.finish.exit_code == config["exit_code"]


def test_log_tail_explains_a_crash_without_error_file(bench: Bench, add_stage: Add) -> None:
    add_stage("fail", {"exit_code": 1})
    assert "the last line of the log" in message_of(bench.run())


def test_killed_stage_is_a_signal(bench: Bench, add_stage: Add) -> None:
    add_stage("kill_itself")
    attempt = bench.run()
    assert finish_of(attempt) == ("failed", Cause.SIGNAL, None)
    assert "SIGKILL" in message_of(attempt)


def test_command_that_cannot_start_is_a_crash(make_bench: Callable[..., Bench], add_stage: Add) -> None:
    add_stage("succeed")
    attempt = make_bench(stage_command=("no-such-program",)).run()
    assert finish_of(attempt)[:2] == ("failed", Cause.CRASH)
    assert "no-such-program" in message_of(attempt)


def test_exit_0_without_manifest_is_no_success(bench: Bench, add_stage: Add) -> None:
    add_stage("forget_manifest")
    attempt = bench.run()
    assert finish_of(attempt) == ("failed", Cause.CRASH, Code.INTERNAL)
    assert "manifest" in message_of(attempt)


@pytest.mark.parametrize("behaviour", ["escape", "escape_by_link"])
def test_manifest_cannot_name_files_outside_the_run_folder(
    server: FakeServer, bench: Bench, add_stage: Add, behaviour: str
) -> None:
    add_stage(behaviour)
    stored = set(server.blobs)
    assert finish_of(bench.run()) == ("failed", Cause.CRASH, Code.BAD_ARTIFACT_PATH)
    assert set(server.blobs) == stored


def test_refused_upload_is_an_upload_failure(server: FakeServer, bench: Bench, add_stage: Add) -> None:
    server.refuse_uploads = True
    add_stage("succeed")
    assert finish_of(bench.run()) == ("failed", Cause.UPLOAD, Code.UPLOAD_TOO_LARGE)


def test_refused_success_is_told_as_a_failure_at_once(
    server: FakeServer, bench: Bench, add_stage: Add
) -> None:
    """Without an end the lease would run out, and the attempt be called lost."""
    server.refuse_success = True
    add_stage("succeed")
    attempt = bench.run()
    assert finish_of(attempt) == ("failed", Cause.UPLOAD, Code.DIGEST_MISMATCH)
    assert "another size" in message_of(attempt)


def test_large_output_goes_up_in_parts(
    server: FakeServer, make_bench: Callable[..., Bench], add_stage: Add
) -> None:
    server.cut_uploads = 1
    text = "0123456789" * 1000
    add_stage("succeed", {"text": text})
    assert finish_of(make_bench(upload_part_bytes=3000).run())[0] == "succeeded"
    assert server.blobs[sha256_hex(text)] == text.encode()


def test_inputs_sources_and_resume_files_are_laid(bench: Bench, add_stage: Add, meeting: Meeting) -> None:
    add_stage(
        "tell_inputs",
        inputs={"corpus.txt": b"corpus", "base/best_checkpoint/config.json": b"{}"},
        sources=(b"uploaded",),
        resume={"sft/resume_checkpoint/training_state.json": b"step 5"},
        stage=StageName.SFT,
    )
    assert finish_of(bench.run())[0] == "succeeded"
    seen = json.loads((meeting.folder / "seen.json").read_text())
    job = json.loads(seen["files"].pop("stages/sft/stage.json"))
    source = hashlib.sha256(b"uploaded").hexdigest()
    assert seen["files"] == {
        "corpus.txt": "corpus",
        "base/best_checkpoint/config.json": "{}",
        f"sources/{source}": "uploaded",
        "sft/resume_checkpoint/training_state.json": "step 5",
        "stages/sft/log.txt": "",
    }
    assert job["run_id"] == "run_1"
    assert seen["folder"].endswith("run_1/sft/1/run")


def test_stage_sees_its_mark_but_no_key(
    bench: Bench, add_stage: Add, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOCHAT_WORKER_API_KEY", "secret")
    monkeypatch.setenv("PICOCHAT_DATABASE_URL", "postgresql://picochat:secret@db/picochat")
    add_stage("tell_inputs")
    attempt = bench.run()
    environment = json.loads((meeting.folder / "seen.json").read_text())["environment"]
    assert environment["PICOCHAT_ATTEMPT"] == attempt.claim.attempt
    assert "secret" not in " ".join(environment.values())


def test_inputs_of_a_local_store_are_hard_links(
    server: FakeServer, make_bench: Callable[..., Bench], add_stage: Add, tmp_path: Path, meeting: Meeting
) -> None:
    add_stage("tell_inputs", inputs={"corpus.txt": b"corpus", "tokenizer.json": b"{}"})
    digest = sha256_hex(b"corpus")
    stored = tmp_path / "store" / "objects" / digest[:2] / digest[2:4] / digest
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"corpus")
    assert finish_of(make_bench(store_dir=tmp_path / "store").run())[0] == "succeeded"
    seen = json.loads((meeting.folder / "seen.json").read_text())["files"]
    assert (seen["corpus.txt"], seen["tokenizer.json"]) == ("corpus", "{}")
    downloads = [seen.path for seen in server.seen if seen.method == "GET"]
    assert downloads == [f"/api/v1/artifacts/{sha256_hex(b'{}')}"]


def test_corrupt_input_is_refused_before_the_stage_starts(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    add_stage("tell_inputs", inputs={"corpus.txt": b"corpus"})
    server.corrupt.add(sha256_hex(b"corpus"))
    attempt = bench.run()
    assert finish_of(attempt) == ("failed", Cause.UPLOAD, None)
    assert "other bytes" in message_of(attempt)
    assert not (meeting.folder / "seen.json").exists()


def test_input_that_the_store_lacks_is_reported(server: FakeServer, bench: Bench, add_stage: Add) -> None:
    add_stage("succeed", inputs={"corpus.txt": b"corpus"})
    server.blobs.clear()
    assert finish_of(bench.run()) == ("failed", Cause.UPLOAD, Code.NOT_FOUND)


def test_input_path_cannot_leave_the_run_folder(server: FakeServer, bench: Bench, add_stage: Add) -> None:
    add_stage("succeed", inputs={"../../corpus.txt": b"corpus"})
    assert finish_of(bench.run()) == ("failed", Cause.UPLOAD, Code.BAD_ARTIFACT_PATH)


def test_worker_fills_in_device_and_caps_processes(
    server: FakeServer, make_bench: Callable[..., Bench], add_stage: Add, meeting: Meeting
) -> None:
    stage = server.stages[add_stage("tell_inputs")]
    stage.job = stage.job.model_copy(update={"resources": Resources(nproc_per_node=8)})
    make_bench(device="cpu", nproc=2).run()
    seen = json.loads((meeting.folder / "seen.json").read_text())
    resources = json.loads(seen["files"]["stages/base/stage.json"])["resources"]
    assert (resources["device"], resources["nproc_per_node"]) == ("cpu", 2)


def test_event_that_no_server_takes_does_not_hold_up_the_others(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    add_stage("poison")
    attempt = bench.run()
    assert finish_of(attempt)[0] == "succeeded"
    assert list(attempt.events) == [1, 3]


def test_outputs_that_cannot_be_stored_end_the_attempt_after_a_while(
    server: FakeServer, make_bench: Callable[..., Bench], add_stage: Add
) -> None:
    server.lease_seconds = 0.9
    server.broken = ("/missing",)
    add_stage("succeed")
    attempt = make_bench(upload_patience_seconds=0.5).run()
    assert finish_of(attempt) == ("failed", Cause.UPLOAD, Code.INTERNAL)


def test_finish_that_is_never_taken_is_given_up(
    server: FakeServer, make_bench: Callable[..., Bench], add_stage: Add
) -> None:
    """Else heartbeats would keep a dead attempt alive for ever."""
    server.lease_seconds = 0.9
    server.broken = ("/finish",)
    add_stage("succeed")
    assert make_bench(upload_patience_seconds=0.5).run().finish is None


def test_fault_of_the_workers_disk_is_reported(
    server: FakeServer, make_bench: Callable[..., Bench], add_stage: Add, tmp_path: Path
) -> None:
    (tmp_path / "work").write_text("a file where the folder should be")
    add_stage("succeed")
    attempt = make_bench().run()
    assert finish_of(attempt) == ("failed", Cause.LOST, None)
    assert "cannot make a folder" in message_of(attempt)


def test_checkpoint_with_other_bytes_is_not_stored(server: FakeServer, bench: Bench, add_stage: Add) -> None:
    """As when the stage swaps in the next one while the links to this one are made."""
    add_stage("checkpoint_torn")
    attempt = bench.run()
    assert finish_of(attempt)[0] == "succeeded"
    assert [checkpoint.step for checkpoint in attempt.checkpoints] == [2]


def test_checkpoint_cannot_name_files_outside_the_run_folder(
    server: FakeServer, bench: Bench, add_stage: Add
) -> None:
    add_stage("checkpoint_escape")
    attempt = bench.run()
    assert finish_of(attempt)[0] == "succeeded"
    assert attempt.checkpoints == []


def test_newest_checkpoint_goes_up_when_several_wait(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.hold_uploads.clear()
    add_stage("checkpoint_often")
    bench.start()
    meeting.pid()  # all three are written, the first upload still hangs
    wait_for(lambda: len(server.attempt().events) == 3, "the events to pass the hanging upload")
    server.hold_uploads.set()
    attempt = server.attempt()
    wait_for(lambda: [c.step for c in attempt.checkpoints] == [10, 30], "the newest checkpoint")
    weights = attempt.checkpoints[-1].files[0]
    assert server.blobs[weights.sha256] == b"weights 30 " * 100
    meeting.tell()
    wait_for(lambda: attempt.finish, "the end")


def test_heartbeats_go_on_while_an_upload_hangs(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds = 0.6
    server.hold_uploads.clear()
    add_stage("checkpoint_often")
    bench.start()
    meeting.pid()
    before = len(server.attempt().steps)
    wait_for(lambda: len(server.attempt().steps) >= before + 5, "five heartbeats")
    assert server.attempt().steps[-1] == 30
    server.hold_uploads.set()
    meeting.tell()
    wait_for(lambda: server.attempt().finish, "the end")


def test_checkpoint_is_asked_for_by_file(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds = 0.6
    add_stage("checkpoint_when_asked")
    bench.start()
    meeting.pid()
    server.attempt().wants_checkpoint = True
    wait_for(lambda: [c.step for c in server.attempt().checkpoints] == [7], "the checkpoint")
    meeting.tell()
    wait_for(lambda: server.attempt().finish, "the end")
