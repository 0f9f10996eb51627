"""Hints over a real broker: they wake the worker, and nothing else hangs on them."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery
from picochat_worker.celery_app import TASK_NAME, make_app

from .conftest import Meeting, alive, wait_for
from .fake_server import FakeServer

Add = Callable[..., str]
StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def queue(server: FakeServer) -> str:
    return f"picochat-{server.port}"


@pytest.fixture
def start_celery(
    start_worker: StartWorker, redis_url: str, queue: str
) -> Callable[[], "subprocess.Popen[bytes]"]:
    """A worker whose own polling is so rare that only hints can explain a start."""

    def start(fallback: str = "600") -> "subprocess.Popen[bytes]":
        return start_worker("--broker", redis_url, queue=queue, fallback_poll_seconds=fallback)

    return start


@contextmanager
def sender(redis_url: str, queue: str) -> Iterator[Callable[..., None]]:
    """What sends a hint at once, since it is connected already."""
    with Celery(broker=redis_url, set_as_current=False) as app:

        def send(stage: str, to: str = queue) -> None:
            app.send_task(TASK_NAME, args=[stage], queue=to, ignore_result=True)

        nobody = f"{queue}-of-nobody"
        send("stg_nobody", nobody)
        redis.Redis.from_url(redis_url).delete(nobody)
        yield send


def publish(redis_url: str, queue: str, stage: str, times: int = 1) -> None:
    with sender(redis_url, queue) as send:
        for _ in range(times):
            send(stage)


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def is_ready(tmp_path: Path) -> bool:
    return "ready" in (tmp_path / "worker-0.out").read_text()


def claims(server: FakeServer) -> int:
    return sum(seen.path.endswith("/claims") for seen in server.seen)


def test_fifty_equal_hints_make_one_attempt(
    server: FakeServer, start_celery: StartWorker, add_stage: Add, redis_url: str, queue: str, tmp_path: Path
) -> None:
    start_celery()
    wait_for(lambda: is_ready(tmp_path) and claims(server) >= 1, "the worker to be idle")
    polls = claims(server)
    publish(redis_url, queue, add_stage("succeed"), times=50)
    wait_for(lambda: claims(server) >= polls + 50, "all hints to be read")
    assert len(server.attempts) == 1
    assert server.attempt().finish
    assert redis.Redis.from_url(redis_url).llen(queue) == 0


def test_hint_names_its_stage(
    server: FakeServer, start_celery: StartWorker, add_stage: Add, redis_url: str, queue: str, tmp_path: Path
) -> None:
    start_celery()
    wait_for(lambda: is_ready(tmp_path) and claims(server) >= 1, "the worker to be idle")
    with sender(redis_url, queue) as send:  # a worker that has just started polls again after a second or so
        add_stage("succeed")
        second = add_stage("succeed")
        send(second)
    wait_for(lambda: server.attempts and server.attempt().finish, "the hinted stage")
    assert next(iter(server.attempts.values())).claim.stage == second


def test_hints_wait_in_the_queue_while_a_stage_runs(
    server: FakeServer,
    start_celery: StartWorker,
    add_stage: Add,
    redis_url: str,
    queue: str,
    tmp_path: Path,
    meeting: Meeting,
) -> None:
    """So that another, idle worker can take them."""
    start_celery()
    wait_for(lambda: is_ready(tmp_path) and claims(server) >= 1, "the worker to be idle")
    publish(redis_url, queue, add_stage("train"))
    meeting.pid()
    publish(redis_url, queue, "stg_other", times=3)
    asked = claims(server)
    assert redis.Redis.from_url(redis_url).llen(queue) == 3
    meeting.tell()
    wait_for(lambda: server.attempt().finish, "the end")
    assert "stg_other" not in server.asked[:asked]
    wait_for(lambda: server.asked.count("stg_other") == 3, "the other hints")


def test_flushed_broker_loses_no_stage(
    server: FakeServer, start_celery: StartWorker, add_stage: Add, redis_url: str, queue: str
) -> None:
    stage = add_stage("succeed")
    publish(redis_url, queue, stage)
    redis.Redis.from_url(redis_url).delete(queue)
    start_celery("1")
    wait_for(lambda: server.attempts and server.attempt().finish, "the fall-back poll")
    assert server.attempt().claim.stage == stage


def test_worker_works_while_the_broker_is_away(
    server: FakeServer, start_worker: StartWorker, add_stage: Add, queue: str
) -> None:
    add_stage("succeed")
    worker = start_worker("--broker", "redis://127.0.0.1:1/0", queue=queue, fallback_poll_seconds="1")
    wait_for(lambda: server.attempts and server.attempt().finish, "the fall-back poll")
    worker.terminate()
    assert worker.wait(20) == 0


def test_sigterm_drains_a_celery_worker_with_a_checkpoint(
    server: FakeServer,
    start_celery: StartWorker,
    add_stage: Add,
    redis_url: str,
    queue: str,
    tmp_path: Path,
    meeting: Meeting,
) -> None:
    worker = start_celery()
    wait_for(lambda: is_ready(tmp_path), "the worker to be ready")
    publish(redis_url, queue, add_stage("train"))
    pid = meeting.pid()
    worker.terminate()
    assert worker.wait(20) == 0
    assert not alive(pid)
    attempt = server.attempt()
    assert attempt.finish
    assert attempt.finish.outcome == "interrupted"
    assert [checkpoint.step for checkpoint in attempt.checkpoints] == [4]


def test_sigterm_is_heard_while_celery_is_still_starting(start_celery: StartWorker, tmp_path: Path) -> None:
    """Sent as soon as the polling thread is there, which is before Celery listens."""
    worker = start_celery()
    wait_for(lambda: (tmp_path / "work" / "worker.lock").exists(), "the worker to start")
    wait_for(lambda: threads_of(worker.pid) > 1, "the polling thread")
    worker.terminate()
    assert worker.wait(20) == 0


def test_killed_celery_worker_takes_its_stage_along(
    start_celery: StartWorker, add_stage: Add, redis_url: str, queue: str, tmp_path: Path, meeting: Meeting
) -> None:
    worker = start_celery()
    wait_for(lambda: is_ready(tmp_path), "the worker to be ready")
    publish(redis_url, queue, add_stage("train"))
    pid = meeting.pid()
    worker.kill()
    worker.wait(10)
    wait_for(lambda: not alive(pid), "the stage to die with its worker", seconds=5)


def test_refused_key_ends_a_celery_worker(start_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    worker = start_worker("--broker", redis_url, api_key="wrong")
    assert worker.wait(30) == 1
    assert "scope `worker`" in (tmp_path / "worker-0.out").read_text()


def test_tasks_are_acknowledged_early_and_keep_no_result(redis_url: str) -> None:
    app = make_app(redis_url, "q", lambda stage: None)
    assert not app.conf.task_acks_late
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.worker_disable_prefetch
    assert app.tasks[TASK_NAME].ignore_result
    assert app.conf.result_backend is None
