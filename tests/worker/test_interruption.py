"""Stages that are ended from outside: no process survives, nothing is lost, nothing is sent too late."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from picochat_contract.states import Cause, DesiredState

from .conftest import Bench, Meeting, alive, wait_for
from .fake_server import Attempt, FakeServer

Add = Callable[..., str]
StartWorker = Callable[..., "subprocess.Popen[bytes]"]


def ended(server: FakeServer, seconds: float = 20) -> Attempt:
    wait_for(lambda: server.attempts and server.attempt().finish, "the attempt to finish", seconds)
    return server.attempt()


def finish_of(attempt: Attempt) -> tuple[str, Cause | None]:
    assert attempt.finish
    return attempt.finish.outcome, attempt.finish.cause


def test_cancel_keeps_a_checkpoint_and_ends_every_process(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds = 0.9
    add_stage("train_with_family")
    bench.start()
    pids = [meeting.pid(), meeting.pid("grandchild")]
    server.attempt().desired = DesiredState.CANCELLED
    attempt = ended(server)
    assert finish_of(attempt) == ("cancelled", Cause.CANCELLED)
    assert attempt.finish
    assert attempt.finish.exit_code == 75
    assert [checkpoint.step for checkpoint in attempt.checkpoints] == [4]
    assert not any(alive(pid) for pid in pids)


def test_stage_that_ignores_sigterm_is_killed_after_the_grace(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds, server.grace_seconds = 0.9, 1.0
    add_stage("ignore_sigterm")
    bench.start()
    pid = meeting.pid()
    server.attempt().desired = DesiredState.CANCELLED
    attempt = ended(server)
    assert attempt.finish
    assert (finish_of(attempt)[0], attempt.finish.exit_code) == ("cancelled", -signal.SIGKILL)
    assert not alive(pid)


def test_cancelled_while_files_are_laid_never_starts(
    server: FakeServer, make_bench: Callable[..., Bench], add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds = 0.6
    add_stage("train", inputs={"corpus.txt": b"corpus"})
    server.away_for_downloads = True
    make_bench().start()
    wait_for(lambda: server.attempts, "the claim")
    server.attempt().desired = DesiredState.CANCELLED
    assert finish_of(ended(server))[0] == "cancelled"
    assert list(meeting.folder.iterdir()) == []


def test_lost_lease_ends_all_processes_and_sends_nothing_more(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds = 1.5
    add_stage("chatter")
    thread = bench.start()
    pid = meeting.pid()
    wait_for(lambda: server.attempt().events, "events")
    lost_at = server.lose(server.attempt())
    wait_for(lambda: not alive(pid), "the stage to be gone", seconds=10)
    thread.join(10)
    attempt = server.attempt()
    assert server.accepted(attempt, lost_at) == []
    assert attempt.finish is None
    refused = [seen for seen in server.seen if seen.attempt == attempt.claim.attempt and seen.status == 409]
    # At most one refusal for each of the threads that were about to send.
    assert 1 <= len(refused) <= 3
    assert not any(bench.settings.home.rglob("events.jsonl"))


def test_outage_shorter_than_the_lease_loses_and_repeats_nothing(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds = 6.0
    add_stage("chatter")
    bench.start()
    pid = meeting.pid()
    wait_for(lambda: server.attempt().events, "events")
    server.stop()
    before = len(server.attempt().events)
    written = next(bench.settings.home.rglob("events.jsonl"))
    wait_for(lambda: len(written.read_bytes().splitlines()) > before + 30, "events during the outage")
    server.start()
    wait_for(lambda: len(server.attempt().events) > before + 30, "the buffered events")
    assert alive(pid)
    meeting.tell()
    attempt = ended(server)
    assert finish_of(attempt) == ("succeeded", None)
    steps = int((meeting.folder / "steps").read_text())
    told = [event.data["step"] for event in attempt.events.values() if event.type == "metric"]
    assert told == [*range(1, steps + 1), 2]
    assert sorted(attempt.events) == list(range(1, len(attempt.events) + 1))


def test_longer_outage_stops_the_stage_before_another_may_take_over(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds, server.grace_seconds = 2.0, 4.0
    add_stage("train")
    bench.start()
    pid = meeting.pid()
    server.stop()
    free_at = server.attempt().renewed_at + server.lease_seconds + server.grace_seconds
    wait_for(lambda: not alive(pid), "the stage to stop")
    assert time.monotonic() < free_at
    assert server.attempt().finish is None
    # The server comes back before anybody took over: checkpoint and end arrive after all.
    server.start()
    attempt = ended(server)
    assert finish_of(attempt) == ("interrupted", Cause.INTERRUPTED)
    assert [checkpoint.step for checkpoint in attempt.checkpoints] == [4]


def test_stubborn_stage_is_killed_before_another_may_take_over(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds, server.grace_seconds = 1.5, 3.0
    add_stage("ignore_sigterm")
    bench.start()
    pid = meeting.pid()
    server.stop()
    free_at = server.attempt().renewed_at + server.lease_seconds + server.grace_seconds
    wait_for(lambda: not alive(pid), "the stage to be killed")
    assert time.monotonic() < free_at


def test_revoked_key_stops_the_stage_at_the_end_of_its_lease(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds, server.grace_seconds = 1.0, 3.0
    add_stage("train")
    bench.start()
    pid = meeting.pid()
    server.revoked = True
    wait_for(lambda: not alive(pid), "the stage to stop")
    assert server.attempt().finish is None


def test_worker_that_is_told_to_leave_does_not_wait_for_an_absent_server(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds, server.grace_seconds = 1.0, 2.0
    add_stage("train")
    thread = bench.start()
    pid = meeting.pid()
    server.stop()
    bench.stop.request()
    thread.join(15)
    assert not thread.is_alive()
    assert not alive(pid)


def test_take_over_during_an_outage_silences_the_first_worker(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds, server.grace_seconds = 1.0, 1.0
    add_stage("chatter")
    thread = bench.start()
    meeting.pid()
    wait_for(lambda: server.attempt().events, "events")
    server.stop()
    stored = dict(server.attempt().events)
    lost_at = server.lose(server.attempt())
    server.start()
    thread.join(15)
    assert not thread.is_alive()
    assert server.accepted(server.attempt(), lost_at) == []
    assert server.attempt().events == stored


def test_sigterm_drains_with_a_checkpoint(
    server: FakeServer, start_worker: StartWorker, add_stage: Add, meeting: Meeting
) -> None:
    add_stage("train")
    worker = start_worker()
    meeting.pid()
    worker.terminate()
    assert worker.wait(20) == 0
    attempt = server.attempt()
    assert finish_of(attempt) == ("interrupted", Cause.INTERRUPTED)
    assert [checkpoint.step for checkpoint in attempt.checkpoints] == [4]


def test_second_sigterm_kills(
    server: FakeServer, start_worker: StartWorker, add_stage: Add, meeting: Meeting, tmp_path: Path
) -> None:
    add_stage("ignore_sigterm")
    worker = start_worker()
    pid = meeting.pid()
    worker.terminate()
    output = tmp_path / "worker-0.out"
    wait_for(lambda: "ending the stage" in output.read_text(), "the first SIGTERM to be heard")
    assert alive(pid)
    worker.terminate()
    assert worker.wait(10) == 0
    assert not alive(pid)
    assert finish_of(server.attempt())[0] == "interrupted"


def test_killed_worker_takes_its_stage_along(
    start_worker: StartWorker, add_stage: Add, meeting: Meeting
) -> None:
    add_stage("train")
    worker = start_worker()
    pid = meeting.pid()
    worker.kill()
    worker.wait(10)
    wait_for(lambda: not alive(pid), "the stage to die with its worker", seconds=5)


def test_next_worker_ends_what_a_killed_one_left(
    server: FakeServer, start_worker: StartWorker, add_stage: Add, meeting: Meeting, tmp_path: Path
) -> None:
    add_stage("train_with_family")
    worker = start_worker()
    orphan = meeting.pid("grandchild")
    meeting.pid()
    worker.kill()
    worker.wait(10)
    assert alive(orphan)
    assert list((tmp_path / "work" / "attempts").rglob("stage.json"))
    start_worker()
    wait_for(lambda: not alive(orphan), "the orphan to be ended")
    wait_for(lambda: not (tmp_path / "work" / "attempts").exists(), "the old workspace to be removed")


def test_frozen_worker_ends_its_stage_when_it_wakes(
    server: FakeServer, start_worker: StartWorker, add_stage: Add, meeting: Meeting
) -> None:
    server.lease_seconds, server.grace_seconds = 1.0, 1.0
    add_stage("chatter")
    worker = start_worker()
    pid = meeting.pid()
    wait_for(lambda: server.attempt().events, "events")
    os.kill(worker.pid, signal.SIGSTOP)
    first = server.attempt()
    over = first.renewed_at + server.lease_seconds + server.grace_seconds
    wait_for(lambda: time.monotonic() > over, "lease and grace to be over")
    lost_at = server.lose(first)
    os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: not alive(pid), "the stage to be gone", seconds=10)
    assert server.accepted(first, lost_at) == []
    add_stage("succeed")
    wait_for(lambda: server.attempt().finish, "the worker to go on with other work")


def test_two_workers_cannot_share_a_work_folder(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker()
    wait_for((tmp_path / "work" / "worker.lock").exists, "the first worker")
    wait_for(lambda: "polls" in (tmp_path / "worker-0.out").read_text(), "the first worker")
    second = start_worker()
    assert second.wait(20) == 64
    assert "another worker is using" in (tmp_path / "worker-1.out").read_text()


@pytest.mark.parametrize("outage", ["none", "long"])
def test_finish_of_a_success_survives_an_outage(
    server: FakeServer, bench: Bench, add_stage: Add, meeting: Meeting, outage: str
) -> None:
    server.lease_seconds, server.grace_seconds = 1.0, 30.0
    add_stage("train")
    bench.start()
    pid = meeting.pid()
    if outage == "long":
        server.stop()
    meeting.tell()
    wait_for(lambda: not alive(pid), "the stage to end")
    if outage == "long":
        over = server.attempt().renewed_at + server.lease_seconds
        wait_for(lambda: time.monotonic() > over, "the lease to be over")
        server.start()
    assert finish_of(ended(server)) == ("succeeded", None)
