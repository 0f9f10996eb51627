"""The whole factory, on both ways to run it: (SQLite, poll) and (Postgres, Celery + Redis)."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from support.stack import Stack, running

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FILES = {
    "corpus.txt",
    "corpus_manifest.json",
    "corpus_report.md",
    "corpus/part-00000.parquet",
    "corpus/dropped.parquet",
    "honesty/honesty_report.json",
    "honesty/audit_report.json",
    "preflight.json",
    "preflight.md",
    "tokenizer.json",
    "tokens/token_shards_manifest.json",
    "base/holdout.json",
    "base/samples.jsonl",
    "base/memorization_report.json",
    "base/checkpoint/model.safetensors",
    "base/best_checkpoint/model.safetensors",
    "base/train_report.json",
    "base/report.md",
    "base/curves.csv",
    "base/curves.png",
    "base/sample.txt",
    "sft/checkpoint/model.safetensors",
    "sft/sft_report.json",
    "sft/report.md",
    "sft/curves.csv",
    "sft/curves.png",
    "sft/sample.txt",
    "sft_fit/sft_fit_report.json",
    "sft_fit_heldout/sft_fit_report.json",
    "eval/eval_report.json",
    "eval/report.md",
    "gate/gate_report.json",
    "summary.json",
    "summary.md",
}


@pytest.fixture(scope="module", params=["sqlite-poll", "postgres-celery"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite-poll":
        built = Stack(home)
    else:
        built = Stack(
            home,
            database_url=request.getfixturevalue("new_database")(),
            broker_url=request.getfixturevalue("redis_url"),
        )
    with running(built):
        yield built


@pytest.fixture(scope="module")
def finished(stack: Stack) -> str:
    """Id of a run that went through the client's front door to its end."""
    spec = stack.home / "spec.yaml"
    spec.write_text("name: smoke\nscale: smoke\n")
    done = stack.client("submit", str(spec), "--wait", "--json")
    assert done.returncode == 2, f"{done.stdout}\n{done.stderr}\n{stack.logs()}"
    return str(json.loads(done.stdout)["run"]["id"])


def test_run_ends_blocked_with_reasons(stack: Stack, finished: str) -> None:
    run = stack.run(finished)
    assert (run["state"], run["verdict"]) == ("succeeded", "blocked")
    report = stack.http.get(f"/api/v1/runs/{finished}/gate").raise_for_status().json()["report"]
    blocking = [check for check in report["checks"] if check["status"] == "block"]
    assert blocking
    assert all(check["message"] and check["fix"] for check in blocking)


def test_every_named_artifact_is_stored_and_comes_back_whole(
    stack: Stack, finished: str, tmp_path: Path
) -> None:
    assert set(stack.digests(finished)) >= FILES
    target = tmp_path / "summary.json"
    done = stack.client("get", finished, "summary.json", "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert json.loads(target.read_text())["gate"]["verdict"] == "blocked"


def test_event_sequence_has_no_gap(stack: Stack, finished: str) -> None:
    events = stack.events(finished)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["type"] for event in events} >= {"state", "metric", "sample", "gate"}


def test_same_spec_again_is_cached_and_only_changed_stages_run(stack: Stack, finished: str) -> None:
    again = stack.submit({"name": "again", "scale": "smoke", "eval": {"max_new_tokens": 25}})
    run = stack.wait_final(again)
    states = {stage["name"]: stage["state"] for stage in run["stages"]}
    assert states == {
        "dataset": "cached",
        "honesty": "cached",
        "preflight": "cached",
        "tokenizer": "cached",
        "base": "cached",
        "sft": "cached",
        "fit": "cached",
        "eval": "succeeded",
        "audit": "succeeded",
        "gate": "succeeded",
        "report": "succeeded",
    }


def test_unreleased_model_is_refused_by_name(stack: Stack, finished: str) -> None:
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.chat.completions.create(model=finished, messages=[{"role": "user", "content": "hi"}])
    assert refused.value.code == "model_not_released"
