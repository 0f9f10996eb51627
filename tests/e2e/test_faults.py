"""Workers die, freeze and repeat themselves; brokers forget. Nothing is lost and nothing runs twice."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from support.stack import Stack, kill_tree, processes_of, running

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Long enough in base that a test can strike in the middle, small enough to finish in seconds.
SPEC = {
    "name": "fault",
    "scale": "smoke",
    "until": "sft",
    "base": {"max_steps": 400, "checkpoint_every": 20, "eval_every": 100},
    "gate": {"profile": "none"},
}
WEIGHTS = ("base/best_checkpoint/model.safetensors", "sft/checkpoint/model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weight digests of the run that nobody touched."""
    with running(Stack(tmp_path_factory.mktemp("undisturbed"))) as stack:
        run = stack.submit(SPEC)
        assert stack.wait_final(run)["state"] == "succeeded", stack.logs()
        return {path: stack.digests(run)[path] for path in WEIGHTS}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running(Stack(tmp_path / "home"), workers=0) as built:
        yield built


def _in_mid_base(stack: Stack, run: str, step: int = 60) -> None:
    stack.wait_until(
        lambda: (stack.stage(run, "base")["step"] or 0) >= step, f"base to reach step {step} of {run}"
    )


def test_killed_worker_resumes_elsewhere_with_equal_weights(
    stack: Stack, undisturbed: dict[str, str]
) -> None:
    first = stack.start_worker("first")
    run = stack.submit(SPEC)
    _in_mid_base(stack, run)
    kill_tree(first)
    stack.start_worker("second")
    ended = stack.wait_final(run)
    assert ended["state"] == "succeeded", stack.logs()
    base = stack.stage(run, "base")
    assert [attempt["state"] for attempt in base["attempts"]] == ["lost", "succeeded"]
    assert {path: stack.digests(run)[path] for path in WEIGHTS} == undisturbed


def test_frozen_worker_is_fenced_off_after_take_over(stack: Stack, undisturbed: dict[str, str]) -> None:
    frozen = stack.start_worker("frozen")
    run = stack.submit({**SPEC, "until": "base"})
    _in_mid_base(stack, run)
    attempt = stack.stage(run, "base")["attempts"][0]["id"]
    trainer = processes_of(attempt)
    assert trainer
    os.kill(frozen.pid, signal.SIGSTOP)
    stack.start_worker("second")
    stack.wait_until(lambda: stack.stage(run, "base")["epoch"] == 2, "the take-over")
    taken_over = max(event["seq"] for event in stack.events(run))
    os.kill(frozen.pid, signal.SIGCONT)
    stack.wait_until(lambda: not processes_of(attempt), "the first worker's processes to be gone", seconds=15)
    assert stack.wait_final(run)["state"] == "succeeded", stack.logs()
    late = [event for event in stack.events(run) if event["seq"] > taken_over and event["stage"] == "base"]
    assert late
    assert {event["epoch"] for event in late} == {2}
    assert stack.digests(run)[WEIGHTS[0]] == undisturbed[WEIGHTS[0]]
    assert "lease_lost" in (stack.home / "worker-frozen.out").read_text()


def test_cancel_checkpoints_and_ends_every_process(stack: Stack) -> None:
    stack.start_worker("w1")
    run = stack.submit(SPEC)
    _in_mid_base(stack, run)
    attempt = stack.stage(run, "base")["attempts"][0]["id"]
    assert stack.client("cancel", run).returncode == 0
    assert stack.wait_final(run)["state"] == "cancelled"
    stack.wait_until(lambda: not processes_of(attempt), "the stage's processes to be gone", seconds=15)


@pytest.fixture
def celery_stack(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Stack]:
    built = Stack(tmp_path / "home", database_url=postgres_url, broker_url=redis_url)
    with running(built, workers=0):
        yield built


def test_fifty_equal_hints_make_one_attempt(celery_stack: Stack, redis_url: str) -> None:
    stack = celery_stack
    run = stack.submit({**SPEC, "until": "dataset"})
    stage = stack.stage(run, "dataset")["id"]
    with Celery(broker=redis_url) as app:
        for _ in range(50):
            app.send_task("picochat.run_stage", args=[stage], queue=stack.queue)
    for name in ("w1", "w2"):
        stack.start_worker(name)
    assert stack.wait_final(run)["state"] == "succeeded", stack.logs()
    queue = redis.Redis.from_url(redis_url)
    stack.wait_until(lambda: queue.llen(stack.queue) == 0, "all hints to be read")
    assert len(stack.stage(run, "dataset")["attempts"]) == 1


def test_flushed_broker_loses_no_queued_run(celery_stack: Stack, redis_url: str) -> None:
    stack = celery_stack
    runs = [stack.submit({**SPEC, "name": f"queued-{n}", "until": "dataset"}) for n in range(3)]
    redis.Redis.from_url(redis_url).flushdb()
    stack.start_worker("w1")
    for run in runs:
        assert stack.wait_final(run)["state"] == "succeeded", stack.logs()
