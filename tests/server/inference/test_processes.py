"""Answers and streams of model processes through OpenAI's own client, and what happens when one dies.

On SQLite only: nothing here depends on the database.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.api import DIGEST_HEADER, VERDICT_HEADER
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.inference.host import ModelHost
from support.finished_run import SFT_WEIGHTS, FinishedRun
from support.visitors import new_key

SAID = "Picochat trains small models."
CHAT = [{"role": "user", "content": "What is Picochat?"}]
DEADLINE_SECONDS = 20
Asker = Callable[[str], openai.OpenAI]
MakeRelease = Callable[..., FinishedRun]
HostOf = Callable[[FastAPI], ModelHost]


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    (tmp_path / "home").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "home" / "picochat.db")
    return f"sqlite:///{tmp_path / 'home' / 'picochat.db'}"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def log_of(app: FastAPI) -> str:
    return "".join(path.read_text() for path in (app.state.settings.home / "models").glob("*.log"))


def pid_in(log: str) -> int:
    return int(log.split()[1])


# --- answers ---


def test_a_released_model_chats_by_its_name(site: str, ask: Asker, make_release: MakeRelease) -> None:
    run = make_release("demo")
    raw = ask(site).chat.completions.with_raw_response.create(model="demo", messages=CHAT)
    answer = raw.parse()
    assert answer.choices[0].message.content == SAID
    assert answer.model == run.run_id, "a name stands for the run that was released under it"
    assert raw.headers[VERDICT_HEADER] == "approved"
    assert raw.headers[DIGEST_HEADER] == run.digest(SFT_WEIGHTS)


def test_a_released_model_chats_by_its_run(site: str, ask: Asker, make_release: MakeRelease) -> None:
    run = make_release("demo")
    answer = ask(site).chat.completions.create(model=run.run_id, messages=CHAT)
    assert answer.choices[0].message.content == SAID


def test_a_chat_is_streamed(site: str, ask: Asker, make_release: MakeRelease) -> None:
    make_release("demo")
    stream = ask(site).chat.completions.create(model="demo", messages=CHAT, stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in stream]
    assert pieces == ["Picochat ", "trains ", "small ", "models."]
    assert stream.response.headers[VERDICT_HEADER] == "approved"
    assert stream.response.headers["content-type"].startswith("text/event-stream")


def test_a_text_is_completed_at_once_and_as_a_stream(
    site: str, ask: Asker, make_release: MakeRelease
) -> None:
    make_release("demo")
    completions = ask(site).completions
    assert completions.create(model="demo", prompt="The ").choices[0].text == SAID
    stream = completions.create(model="demo", prompt="The ", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == SAID


def test_a_refusal_of_the_model_process_is_passed_on(
    site: str, ask: Asker, make_release: MakeRelease
) -> None:
    make_release("demo")
    with pytest.raises(openai.BadRequestError, match="max_tokens must be 1 or more") as refused:
        ask(site).completions.create(model="demo", prompt="x", max_tokens=0)
    assert refused.value.code == "invalid_request"


def test_a_stream_arrives_while_it_is_made(site: str, ask: Asker, make_release: MakeRelease) -> None:
    make_release("demo", "endless")
    with ask(site).completions.create(model="demo", prompt="x", stream=True) as stream:
        pieces = [chunk.choices[0].text for _, chunk in zip(range(30), stream, strict=False)]
    assert pieces[-1] == "on "


def test_a_client_who_goes_away_ends_the_work(
    site: str, ask: Asker, app: FastAPI, make_release: MakeRelease
) -> None:
    make_release("demo", "endless")
    stream = ask(site).completions.create(model="demo", prompt="x", stream=True)
    next(iter(stream))
    stream.close()
    wait_until(lambda: "closed" in log_of(app))


def test_a_running_stream_holds_no_database_connection(
    site: str, ask: Asker, app: FastAPI, make_release: MakeRelease
) -> None:
    make_release("demo", "endless")
    with ask(site).completions.create(model="demo", prompt="x", stream=True) as stream:
        next(iter(stream))
        wait_until(lambda: [engine.pool.checkedout() for engine in app.state.engines] == [0, 0])
        with transaction(app.state.sessions) as session:
            ensure_project(session, "written meanwhile")


# --- processes ---


def test_a_model_that_cannot_start_is_reported_with_its_log(
    site: str, ask: Asker, make_release: MakeRelease
) -> None:
    make_release("demo", "fail")
    with pytest.raises(openai.InternalServerError, match="unreadable, says the fake") as failed:
        ask(site).completions.create(model="demo", prompt="x")
    assert failed.value.status_code == 503
    assert failed.value.code == "model_host_unavailable"
    assert failed.value.response.headers["retry-after"] == "5"


def test_a_crash_in_an_answer_is_reported_and_the_next_call_starts_anew(
    site: str, ask: Asker, app: FastAPI, make_release: MakeRelease
) -> None:
    make_release("demo", "crash")
    pids = set()
    for _ in range(2):
        with pytest.raises(openai.InternalServerError, match="out of memory, says the fake"):
            ask(site).completions.create(model="demo", prompt="x")
        pids.add(pid_in(log_of(app)))
    assert len(pids) == 2


def test_a_crash_in_a_stream_ends_it_with_an_error(
    site: str, ask: Asker, app: FastAPI, make_release: MakeRelease
) -> None:
    make_release("demo", "endless")
    stream = ask(site).completions.create(model="demo", prompt="x", stream=True)
    next(iter(stream))
    os.kill(pid_in(log_of(app)), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


def test_an_idle_model_is_stopped_but_not_while_it_answers(
    site: str, ask: Asker, app: FastAPI, host_of: HostOf, make_release: MakeRelease
) -> None:
    host_of(app)._idle_seconds = 0.5
    make_release("demo", "endless")
    stream = ask(site).completions.create(model="demo", prompt="x", stream=True)
    deadline = time.monotonic() + 2
    for _ in stream:
        if time.monotonic() > deadline:
            break
    assert len(host_of(app).live) == 1
    stream.close()
    wait_until(lambda: host_of(app).live == ())


def test_a_client_who_goes_away_early_does_not_hold_the_model(
    site: str, app: FastAPI, project_id: str, host_of: HostOf, make_release: MakeRelease
) -> None:
    make_release("demo", "model")
    headers = {"Authorization": f"Bearer {new_key(app, project_id, 'infer').secret}"}
    with pytest.raises(httpx.TimeoutException):  # while the process is still starting
        httpx.post(
            f"{site}/v1/completions", json={"model": "demo", "prompt": "x"}, headers=headers, timeout=0.15
        )
    wait_until(lambda: len(host_of(app).live) == 1)
    wait_until(lambda: all(slot.num_requests == 0 for slot in host_of(app)._slots.values()))


def test_stopping_the_server_stops_its_models(
    app: FastAPI, client: TestClient, make_release: MakeRelease
) -> None:
    make_release("demo")
    with client:
        assert client.post("/v1/completions", json={"model": "demo", "prompt": "x"}).status_code == 200
        pid = pid_in(log_of(app))
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_concurrent_first_calls_start_one_process(
    site: str, ask: Asker, app: FastAPI, host_of: HostOf, make_release: MakeRelease
) -> None:
    make_release("demo")
    client = ask(site)
    said: list[str] = []

    def call() -> None:
        said.append(client.completions.create(model="demo", prompt="x").choices[0].text)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert said == [SAID] * 6
    assert len(host_of(app).live) == 1
    assert log_of(app).count("pid ") == 1
