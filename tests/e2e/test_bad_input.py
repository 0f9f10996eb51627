"""Bad input through the front door: each kind has its own stable code and a message that says what to do."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.stack import Stack, running

pytestmark = pytest.mark.e2e

MAX_UPLOAD = 1_000_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    built = Stack(
        tmp_path_factory.mktemp("bad-input"), environment={"PICOCHAT_MAX_UPLOAD_BYTES": str(MAX_UPLOAD)}
    )
    with running(built):
        yield built


def _problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    assert len(problem["detail"]) > 20
    return problem


SPECS = {
    "unknown_key": ({"base": {"model": {"n_embed": 64}}}, "did you mean 'n_embd'"),
    "invalid_shape": ({"base": {"model": {"n_embd": 130, "n_head": 4}}}, "n_embd=132"),
    "invalid_value": ({"base": {"max_steps": "many"}}, "'many'"),
    "source_not_uploaded": ({"dataset": {"sources": [{"type": "file", "path": "/etc/passwd"}]}}, "upload"),
}


@pytest.mark.parametrize("code", SPECS)
def test_server_refuses_a_bad_spec(stack: Stack, code: str) -> None:
    spec, hint = SPECS[code]
    assert hint in _problem(stack.http.post("/api/v1/runs", json=spec), 422, code)["detail"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("base: {model: {n_embed: 64}}", "unknown_key"),
        ("base: {model: {n_embd: 130, n_head: 4}}", "invalid_shape"),
        ("base: [", "not_yaml"),
        ("dataset: {sources: [{type: file, path: ./nowhere.txt}]}", "corpus_missing"),
    ],
)
def test_client_refuses_a_bad_spec_before_it_submits(
    stack: Stack, tmp_path: Path, text: str, code: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    done = stack.client("submit", str(spec))
    assert done.returncode == 64
    assert code in done.stderr
    assert "Traceback" not in done.stderr


def test_unreadable_corpus_fails_the_run_and_names_file_and_line(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(b"first line\nsecond \xff\xfe line\n" * 50)
    spec = tmp_path / "spec.yaml"
    spec.write_text("scale: smoke\ndataset: {sources: [{type: file, path: corpus.txt}]}")
    done = stack.client("submit", str(spec), "--wait")
    assert done.returncode == 1, done.stdout + done.stderr
    shown = done.stdout + done.stderr
    assert "file_unreadable" in shown
    assert "corpus.txt" in shown
    assert "line 2" in shown


def test_wrong_key(stack: Stack) -> None:
    answer = httpx.get(f"{stack.url}/api/v1/runs", headers={"Authorization": "Bearer pk_wrong"})
    _problem(answer, 401, "unauthenticated")


def test_wrong_scope(stack: Stack) -> None:
    made = stack.http.post("/api/v1/keys", json={"name": "reader", "scopes": ["runs:read"]})
    secret = made.raise_for_status().json()["secret"]
    answer = httpx.post(
        f"{stack.url}/api/v1/runs", json={"scale": "smoke"}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert "runs:write" in _problem(answer, 403, "forbidden_scope")["detail"]


def test_oversized_upload(stack: Stack) -> None:
    data = b"x" * (MAX_UPLOAD + 1)
    answer = stack.http.put(f"/api/v1/artifacts/{hashlib.sha256(data).hexdigest()}", content=data)
    _problem(answer, 413, "upload_too_large")


def test_wrong_digest(stack: Stack) -> None:
    digest = hashlib.sha256(b"expected").hexdigest()
    _problem(stack.http.put(f"/api/v1/artifacts/{digest}", content=b"other"), 422, "digest_mismatch")
    assert stack.http.head(f"/api/v1/artifacts/{digest}").status_code == 404


@pytest.mark.parametrize("path", ["..%2f..%2fclient.json", "base/..%2f..%2fclient.json", "%2fetc%2fpasswd"])
def test_path_traversal_in_an_artifact_name(stack: Stack, path: str) -> None:
    run = stack.submit({"scale": "smoke", "until": "dataset"})
    _problem(stack.http.get(f"/api/v1/runs/{run}/artifacts/{path}"), 400, "bad_artifact_path")


def test_foreign_host_name(stack: Stack) -> None:
    answer = stack.http.get("/api/v1/runs", headers={"Host": "evil.example"})
    _problem(answer, 400, "bad_host")
