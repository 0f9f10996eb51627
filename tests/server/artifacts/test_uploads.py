"""PUT, PATCH, HEAD and POST missing: what is stored, what is refused, and that memory stays flat."""

import hashlib
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.api import UploadOut
from picochat_contract.canonical import sha256_hex
from picochat_server.db import transaction
from picochat_server.models import Artifact
from sqlalchemy import func, select
from support.artifacts import Blob
from support.raw_asgi import send_raw

MIB = 1 << 20
MISSING = "/api/v1/artifacts/missing"
Keys = Callable[..., dict[str, str]]


def count_artifacts(app: FastAPI) -> int:
    with transaction(app.state.sessions) as session:
        return session.scalar(select(func.count()).select_from(Artifact)) or 0


def is_empty(app: FastAPI) -> bool:
    """No row, no object, no upload under way."""
    files = [path for path in app.state.store.root.rglob("*") if path.is_file()]
    return count_artifacts(app) == 0 and files == []


def part(offset: int, length: int) -> dict[str, str]:
    return {"Upload-Offset": str(offset), "Upload-Length": str(length)}


def test_put_stores_and_get_gives_the_same_bytes(client: TestClient, blob: Blob) -> None:
    first, second = client.put(blob.url, content=blob.content), client.put(blob.url, content=blob.content)
    assert (first.status_code, second.status_code) == (201, 200)
    size = len(blob.content)
    assert UploadOut.model_validate(first.json()) == UploadOut(
        sha256=blob.digest, size_bytes=size, complete=True, offset=size
    )
    assert client.get(blob.url).content == blob.content


def test_an_empty_file_is_a_file(client: TestClient) -> None:
    empty = Blob(b"")
    assert client.put(empty.url, content=b"").status_code == 201
    answer = client.get(empty.url)
    assert (answer.status_code, answer.content) == (200, b"")


def test_wrong_bytes_are_refused_and_leave_nothing(app: FastAPI, client: TestClient, blob: Blob) -> None:
    answer = client.put(blob.url, content=blob.content + b"!")
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert sha256_hex(blob.content + b"!") in answer.json()["detail"]
    assert client.get(blob.url).status_code == 404
    assert is_empty(app)


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
@pytest.mark.parametrize("digest", ["abc", "A" * 64, "g" * 64, "a" * 65, "a" * 63 + "%0A"])
def test_a_bad_digest_is_refused(client: TestClient, method: str, digest: str) -> None:
    answer = client.request(method, f"/api/v1/artifacts/{digest}", content=b"x" if method == "PUT" else None)
    assert answer.status_code == 422
    assert method == "HEAD" or answer.json()["code"] == "bad_digest"


def test_an_announced_size_past_the_limit_is_refused_before_any_byte(
    app: FastAPI, admin_key: str, blob: Blob
) -> None:
    app.state.settings = app.state.settings.model_copy(update={"max_upload_bytes": 100})
    headers = {"Authorization": f"Bearer {admin_key}", "Content-Length": "101"}

    def body() -> object:
        raise AssertionError("the body was read")
        yield b""

    answer = send_raw(app, "PUT", blob.url, headers, body())  # type: ignore[arg-type]
    assert (answer.status, b"upload_too_large" in answer.body) == (413, True)
    assert is_empty(app)


def test_counted_bytes_past_the_limit_are_refused(app: FastAPI, admin_key: str, blob: Blob) -> None:
    app.state.settings = app.state.settings.model_copy(update={"max_upload_bytes": 100})
    headers = {"Authorization": f"Bearer {admin_key}", "Transfer-Encoding": "chunked"}
    answer = send_raw(app, "PUT", blob.url, headers, [blob.content[:60], blob.content[60:120]])
    assert (answer.status, b"upload_too_large" in answer.body) == (413, True)
    assert is_empty(app)


def test_eight_uploads_of_one_file_at_once_all_succeed(app: FastAPI, client: TestClient) -> None:
    blob = Blob(b"x" * (3 * MIB))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.put(blob.url, content=blob.content), range(8)))
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert client.get(blob.url).content == blob.content
    assert count_artifacts(app) == 1


def test_memory_stays_flat_during_a_large_upload(app: FastAPI, admin_key: str) -> None:
    chunk, num_chunks = b"x" * (256 * 1024), 800  # 200 MiB
    digest = hashlib.sha256()
    for _ in range(num_chunks):
        digest.update(chunk)
    headers = {"Authorization": f"Bearer {admin_key}"}
    tracemalloc.start()
    try:
        url = f"/api/v1/artifacts/{digest.hexdigest()}"
        answer = send_raw(app, "PUT", url, headers, repeat(chunk, num_chunks))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status == 201
    assert app.state.store.size(digest.hexdigest()) == 200 * MIB
    assert peak < 16 * MIB


def test_parts_are_put_together(client: TestClient, blob: Blob) -> None:
    size = len(blob.content)
    first = client.patch(blob.url, content=blob.content[:1000], headers=part(0, size))
    assert (first.status_code, first.json()["complete"], first.json()["offset"]) == (200, False, 1000)
    assert client.get(blob.url).status_code == 404
    last = client.patch(blob.url, content=blob.content[1000:], headers=part(1000, size))
    assert (last.status_code, last.json()["complete"], last.json()["offset"]) == (200, True, size)
    assert client.get(blob.url).content == blob.content


def test_a_part_at_the_wrong_offset_is_told_the_right_one(client: TestClient, blob: Blob) -> None:
    size = len(blob.content)
    client.patch(blob.url, content=blob.content[:1000], headers=part(0, size))
    answer = client.patch(blob.url, content=blob.content[500:], headers=part(500, size))
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_offset")
    assert (answer.json()["offset"], answer.headers["Upload-Offset"]) == (1000, "1000")
    assert "byte 1000" in answer.json()["detail"]


def test_a_repeated_last_part_is_answered_as_complete(client: TestClient, blob: Blob) -> None:
    size = len(blob.content)
    answers = [client.patch(blob.url, content=blob.content, headers=part(0, size)) for _ in range(2)]
    assert [answer.json()["complete"] for answer in answers] == [True, True]


def test_an_empty_last_part_asks_for_the_check(client: TestClient, blob: Blob) -> None:
    size = len(blob.content)
    # As after a crash of the server between the last byte and the check: all is there, nothing is visible.
    client.patch(blob.url, content=blob.content, headers=part(0, size + 1))
    assert client.get(blob.url).status_code == 404
    answer = client.patch(blob.url, content=b"", headers=part(size, size))
    assert answer.json()["complete"] is True
    assert client.get(blob.url).content == blob.content


def test_wrong_parts_are_thrown_away_at_the_end(app: FastAPI, client: TestClient, blob: Blob) -> None:
    size = len(blob.content)
    client.patch(blob.url, content=b"!" * 1000, headers=part(0, size))
    answer = client.patch(blob.url, content=blob.content[1000:], headers=part(1000, size))
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert is_empty(app)
    again = client.patch(blob.url, content=blob.content, headers=part(0, size))
    assert again.json()["complete"] is True


def test_a_part_past_the_announced_length_changes_nothing(
    app: FastAPI, client: TestClient, admin_key: str, blob: Blob
) -> None:
    size = len(blob.content)
    client.patch(blob.url, content=blob.content[:1000], headers=part(0, size))
    announced = client.patch(blob.url, content=blob.content, headers=part(1000, size))
    assert (announced.status_code, announced.json()["code"]) == (422, "invalid_request")
    headers = {"Authorization": f"Bearer {admin_key}", **part(1000, size)}
    counted = send_raw(app, "PATCH", blob.url, headers, [blob.content])
    assert (counted.status, b"nothing of it was kept" in counted.body) == (422, True)
    assert client.head(blob.url).headers["Upload-Offset"] == "1000"


def test_a_length_past_the_limit_is_refused(client: TestClient, app: FastAPI, blob: Blob) -> None:
    app.state.settings = app.state.settings.model_copy(update={"max_upload_bytes": 100})
    answer = client.patch(blob.url, content=b"x", headers=part(0, 101))
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")


@pytest.mark.parametrize(
    "headers", [{}, {"Upload-Offset": "0"}, part(-1, 5), {**part(0, 5), "Upload-Length": "x"}]
)
def test_a_part_without_its_place_is_refused(client: TestClient, blob: Blob, headers: dict[str, str]) -> None:
    answer = client.patch(blob.url, content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_cut_upload_goes_on_where_it_stopped(
    app: FastAPI, client: TestClient, admin_key: str, blob: Blob, method: str
) -> None:
    size = len(blob.content)
    headers = {"Authorization": f"Bearer {admin_key}", **part(0, size)}
    send_raw(app, method, blob.url, headers, [blob.content[:700], blob.content[700:900]], goes_away=True)
    head = client.head(blob.url)
    assert (head.status_code, head.headers["Upload-Offset"]) == (404, "900")
    assert count_artifacts(app) == 0
    answer = client.patch(blob.url, content=blob.content[900:], headers=part(900, size))
    assert answer.json()["complete"] is True
    assert client.get(blob.url).content == blob.content


def test_nobody_goes_on_with_another_keys_upload(
    app: FastAPI, client: TestClient, key_for: Keys, blob: Blob
) -> None:
    client.patch(blob.url, content=blob.content[:700], headers=part(0, len(blob.content)))
    other = key_for("artifacts:write")
    assert client.head(blob.url, headers=other).headers["Upload-Offset"] == "0"
    answer = client.patch(
        blob.url, content=blob.content[700:], headers={**other, **part(700, len(blob.content))}
    )
    assert (answer.status_code, answer.json()["offset"]) == (409, 0)


def test_head_tells_size_and_etag(client: TestClient, blob: Blob) -> None:
    client.put(blob.url, content=blob.content)
    head = client.head(blob.url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(blob.content))
    assert head.headers["ETag"] == f'"{blob.digest}"'


def test_missing_names_what_has_to_be_sent(client: TestClient, blob: Blob) -> None:
    client.put(blob.url, content=blob.content)
    absent = sha256_hex("absent")
    answer = client.post(MISSING, json={"digests": [absent, blob.digest, absent]})
    assert answer.json() == {"missing": [absent]}


def test_missing_takes_many_digests(client: TestClient) -> None:
    digests = [sha256_hex(str(number)) for number in range(2_500)]
    assert client.post(MISSING, json={"digests": digests}).json()["missing"] == digests


def test_bytes_gone_from_the_store_are_missing(app: FastAPI, client: TestClient, blob: Blob) -> None:
    client.put(blob.url, content=blob.content)
    app.state.store.path(blob.digest).unlink()
    assert client.post(MISSING, json={"digests": [blob.digest]}).json()["missing"] == [blob.digest]
    assert client.get(blob.url).status_code == 404
    assert client.put(blob.url, content=blob.content).status_code == 200
    assert client.get(blob.url).content == blob.content


def test_missing_refuses_what_is_not_a_digest(client: TestClient) -> None:
    answer = client.post(MISSING, json={"digests": ["../../etc/passwd"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_digest")


def test_another_project_neither_reads_nor_learns_of_a_file(
    client: TestClient, stranger: TestClient, blob: Blob
) -> None:
    client.put(blob.url, content=blob.content)
    assert stranger.get(blob.url).status_code == 404
    assert stranger.head(blob.url).status_code == 404
    assert stranger.post(MISSING, json={"digests": [blob.digest]}).json()["missing"] == [blob.digest]
    assert stranger.put(blob.url, content=b"guess").status_code == 422
    assert stranger.get(blob.url).status_code == 404
    assert stranger.put(blob.url, content=blob.content).status_code == 201  # new to it, as far as it can tell
    assert stranger.get(blob.url).content == blob.content


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("artifacts:read", {"GET", "HEAD"}),
        ("artifacts:write", {"HEAD", "PUT", "PATCH", "POST"}),
        ("worker", {"GET", "HEAD", "POST"}),
        ("runs:read", set()),
        ("runs:write", set()),
        ("infer", set()),
        ("admin", {"GET", "HEAD", "PUT", "PATCH", "POST"}),
    ],
)
def test_each_scope_opens_its_own_doors(
    client: TestClient, key_for: Keys, blob: Blob, scope: str, allowed: set[str]
) -> None:
    client.put(blob.url, content=blob.content)
    key = key_for(scope)
    answers = {
        "GET": client.get(blob.url, headers=key),
        "HEAD": client.head(blob.url, headers=key),
        "PUT": client.put(blob.url, content=blob.content, headers=key),
        "PATCH": client.patch(blob.url, content=b"", headers={**key, **part(0, 1)}),
        "POST": client.post(MISSING, json={"digests": []}, headers=key),
    }
    assert {method for method, answer in answers.items() if answer.status_code != 403} == allowed
    refused = [answer for method, answer in answers.items() if method not in allowed | {"HEAD"}]
    assert all(answer.json()["code"] == "forbidden_scope" for answer in refused)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer pk_wrong"}, {"Authorization": "Basic eDp5"}]
)
def test_without_a_key_nothing_is_received(app: FastAPI, blob: Blob, headers: dict[str, str]) -> None:
    answer = TestClient(app, base_url="http://127.0.0.1").put(blob.url, content=blob.content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert is_empty(app)
