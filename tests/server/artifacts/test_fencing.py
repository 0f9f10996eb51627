"""A worker uploads only while its attempt holds the stage; after a take-over nothing of it is stored."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.artifacts import Blob, LiveAttempt, live_attempt
from support.raw_asgi import send_raw


@pytest.fixture
def attempt(app: FastAPI, project_id: str) -> LiveAttempt:
    return live_attempt(app, project_id)


def part(offset: int, length: int) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Length": str(length)}


def test_the_holder_of_a_lease_uploads(worker: TestClient, attempt: LiveAttempt, blob: Blob) -> None:
    answer = worker.put(blob.url, content=blob.content, headers=attempt.headers)
    assert answer.status_code == 201
    assert worker.get(blob.url).content == blob.content


def test_the_holder_of_a_lease_uploads_in_parts(worker: TestClient, attempt: LiveAttempt, blob: Blob) -> None:
    size = len(blob.content)
    worker.patch(blob.url, content=blob.content[:9], headers={**attempt.headers, **part(0, size)})
    assert worker.head(blob.url, headers=attempt.headers).headers["Upload-Offset"] == "9"
    answer = worker.patch(blob.url, content=blob.content[9:], headers={**attempt.headers, **part(9, size)})
    assert answer.json()["complete"] is True


@pytest.mark.parametrize("left_out", ["Picochat-Lease", "Picochat-Attempt"])
def test_a_worker_without_its_lease_is_refused(
    worker: TestClient, attempt: LiveAttempt, blob: Blob, left_out: str
) -> None:
    headers = {name: value for name, value in attempt.headers.items() if name != left_out}
    answer = worker.put(blob.url, content=blob.content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_scope")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_after_a_take_over_the_old_attempt_is_refused(
    worker: TestClient, attempt: LiveAttempt, blob: Blob, method: str
) -> None:
    new = attempt.take_over()
    headers = {**attempt.headers, **part(0, len(blob.content))}
    answer = worker.request(method, blob.url, content=blob.content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")
    assert worker.get(blob.url).status_code == 404
    assert worker.put(blob.url, content=blob.content, headers=new.headers).status_code == 201


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_take_over_in_the_middle_of_an_upload_refuses_its_commit(
    app: FastAPI, worker: TestClient, worker_key: str, attempt: LiveAttempt, blob: Blob, method: str
) -> None:
    def body() -> Iterator[bytes]:
        yield blob.content[:1000]
        attempt.take_over()
        yield blob.content[1000:]

    headers = {"Authorization": f"Bearer {worker_key}", **attempt.headers, **part(0, len(blob.content))}
    answer = send_raw(app, method, blob.url, headers, body())
    assert (answer.status, b"lease_lost" in answer.body) == (409, True)
    assert not app.state.store.has(blob.digest)
    assert worker.get(blob.url).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Picochat-Lease": "0" * 64},
        {"Picochat-Lease": "\u00e9"},
        {"Picochat-Attempt": "att_00000000000000000f"},
        {"Picochat-Attempt": "x"},
    ],
    ids=["wrong token", "odd token", "unknown attempt", "odd attempt"],
)
def test_a_wrong_token_or_attempt_is_a_lost_lease(
    app: FastAPI, worker_key: str, attempt: LiveAttempt, blob: Blob, headers: dict[str, str]
) -> None:
    sent = {"Authorization": f"Bearer {worker_key}", **attempt.headers, **headers}
    answer = send_raw(app, "PUT", blob.url, sent, [blob.content])
    assert (answer.status, b"lease_lost" in answer.body) == (409, True)


def test_a_lease_of_another_project_is_refused(
    app: FastAPI, attempt: LiveAttempt, key_for: Callable[..., dict[str, str]], blob: Blob
) -> None:
    key = key_for("worker", project="other")
    answer = send_raw(app, "PUT", blob.url, {**key, **attempt.headers}, [blob.content])
    assert (answer.status, b"lease_lost" in answer.body) == (409, True)


def test_lease_headers_are_checked_even_with_an_admins_key(
    client: TestClient, attempt: LiveAttempt, blob: Blob
) -> None:
    attempt.take_over()
    answer = client.put(blob.url, content=blob.content, headers=attempt.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")


def test_the_next_attempt_does_not_go_on_with_a_partial_of_the_old_one(
    worker: TestClient, attempt: LiveAttempt, blob: Blob
) -> None:
    size = len(blob.content)
    worker.patch(blob.url, content=b"poison", headers={**attempt.headers, **part(0, size)})
    new = attempt.take_over()
    answer = worker.patch(blob.url, content=blob.content, headers={**new.headers, **part(0, size)})
    assert answer.json()["complete"] is True
