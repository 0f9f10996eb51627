"""/v1 through OpenAI's own client: who may call which model, and by what right."""

from collections.abc import Callable

import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_contract.api import DIGEST_HEADER, VERDICT_HEADER
from picochat_contract.canonical import sha256_hex
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from support import seeded_runs as seed
from support.finished_run import SFT_WEIGHTS, FinishedRun
from support.visitors import new_key

CHAT = [{"role": "user", "content": "What is Picochat?"}]
Asker = Callable[[str], openai.OpenAI]
MakeRun = Callable[[str], FinishedRun]
MakeRelease = Callable[..., FinishedRun]


def test_an_unreleased_model_is_refused(site: str, ask: Asker, make_run: MakeRun) -> None:
    run = make_run("model")
    for name in (run.run_id, f"{run.run_id}:base"):
        with pytest.raises(openai.PermissionDeniedError, match="is not released") as refused:
            ask(site).chat.completions.create(model=name, messages=CHAT)
        assert refused.value.code == "model_not_released"
    assert ask(site).models.list().data == []


def test_a_base_checkpoint_is_not_covered_by_the_release_of_its_run(
    site: str, ask: Asker, make_release: MakeRelease
) -> None:
    run = make_release("demo")
    with pytest.raises(openai.PermissionDeniedError):
        ask(site).completions.create(model=f"{run.run_id}:base", prompt="x")


def test_a_server_may_allow_unreleased_models_and_says_their_verdict(
    free_site: str, ask: Asker, app: FastAPI, project_id: str, make_run: MakeRun
) -> None:
    blocked = seed.finished(app, project_id, "tiny", seed.blocked_files())
    approved = make_run("model")
    completions = ask(free_site).completions.with_raw_response
    for name, verdict, weights in (
        (blocked.run_id, "blocked", blocked.digest(SFT_WEIGHTS)),
        (approved.run_id, "approved", approved.digest(SFT_WEIGHTS)),
        (f"{approved.run_id}:base", "none", sha256_hex(b"base weights")),
    ):
        answer = completions.create(model=name, prompt="x")
        assert answer.parse().model == name
        assert (answer.headers[VERDICT_HEADER], answer.headers[DIGEST_HEADER]) == (verdict, weights)


def test_models_lists_what_the_key_may_call(
    site: str, free_site: str, ask: Asker, make_run: MakeRun, make_release: MakeRelease
) -> None:
    unreleased, released = make_run("one"), make_release("demo", "two")
    listed = ask(site).models.list().data
    assert [model.id for model in listed] == ["demo", released.run_id]
    assert {model.owned_by for model in listed} == {"picochat"}
    assert ask(site).models.retrieve("demo").id == "demo"
    free = {model.id for model in ask(free_site).models.list()}
    runs = {unreleased.run_id, released.run_id}
    assert free == {"demo", *runs, *(f"{run}:base" for run in runs)}


def test_an_unknown_model_is_not_found(site: str, ask: Asker) -> None:
    for name in ("gpt-4", "run_000000000000000000", "x" * 500, "../../etc/passwd"):
        with pytest.raises(openai.NotFoundError) as refused:
            ask(site).completions.create(model=name, prompt="x")
        assert refused.value.code == "model_not_found"


def test_a_run_without_a_finished_checkpoint_is_not_ready(
    site: str, ask: Asker, app: FastAPI, project_id: str
) -> None:
    run_id = seed.running(app, project_id, "nightly")
    with pytest.raises(openai.ConflictError, match="has no finished sft/checkpoint yet") as refused:
        ask(site).completions.create(model=run_id, prompt="x")
    assert refused.value.code == "model_not_ready"


def test_another_projects_model_is_not_found(site: str, app: FastAPI, make_release: MakeRelease) -> None:
    run = make_release("demo")
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
    with openai.OpenAI(
        base_url=f"{site}/v1", api_key=new_key(app, other, "infer").secret, max_retries=0
    ) as stranger:
        for name in ("demo", run.run_id):
            with pytest.raises(openai.NotFoundError):
                stranger.completions.create(model=name, prompt="x")
        assert stranger.models.list().data == []


def test_a_key_without_the_scope_is_refused(site: str, ask: Asker, app: FastAPI, project_id: str) -> None:
    key = new_key(app, project_id, "runs:read").secret
    reader = ask(site).with_options(api_key=key)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        reader.completions.create(model="demo", prompt="x")
    assert refused.value.code == "forbidden_scope"
    nobody = reader.with_options(api_key="pk_wrong")
    with pytest.raises(openai.AuthenticationError):
        nobody.models.list()


@pytest.mark.parametrize("path", [SFT_WEIGHTS, layout.EVAL_REPORT, layout.CORPUS_MANIFEST])
def test_one_changed_byte_ends_a_release(site: str, ask: Asker, make_release: MakeRelease, path: str) -> None:
    make_release("demo").flip_byte(path)
    with pytest.raises(openai.PermissionDeniedError, match="does not apply any more") as refused:
        ask(site).completions.create(model="demo", prompt="x")
    assert refused.value.code == "model_not_released"


def test_a_damaged_file_that_the_gate_does_not_read_is_not_served(
    site: str, ask: Asker, make_release: MakeRelease
) -> None:
    make_release("demo").flip_byte(layout.TOKENIZER)
    with pytest.raises(openai.InternalServerError, match=r"tokenizer\.json: the stored bytes") as refused:
        ask(site).completions.create(model="demo", prompt="x")
    assert refused.value.code == "model_host_unavailable"


@pytest.mark.parametrize(
    ("body", "param"),
    [(b"{", None), (b"[]", None), (b"{}", "model"), (b'{"model": 3}', "model"), (b'{"model": ""}', "model")],
)
def test_a_body_that_names_no_model_is_refused(client: TestClient, body: bytes, param: str | None) -> None:
    with client:
        answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["param"] == param
