"""GET by digest and by path: ranges, conditions, safe headers, and paths that lead nowhere else."""

from collections.abc import Callable
from email.message import Message

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from support.artifacts import Blob
from support.finished_run import SFT_WEIGHTS, FinishedRun, approved_files, make_finished_run
from support.raw_asgi import send_raw


@pytest.fixture
def stored(client: TestClient, blob: Blob) -> Blob:
    assert client.put(blob.url, content=blob.content).status_code == 201
    return blob


@pytest.fixture
def run(app: FastAPI, project_id: str) -> FinishedRun:
    return make_finished_run(app, project_id, approved_files())


def url_of(run: FinishedRun, path: str) -> str:
    return f"/api/v1/runs/{run.run_id}/artifacts/{path}"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-5", -5, None),
        ("bytes=9000-999999", 9000, None),
    ],
)
def test_a_range_is_answered(
    client: TestClient, stored: Blob, asked: str, start: int, end: int | None
) -> None:
    answer = client.get(stored.url, headers={"Range": asked})
    expected = stored.content[start:end]
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["Content-Range"].endswith(f"/{len(stored.content)}")
    assert answer.headers["Content-Length"] == str(len(expected))
    assert answer.headers["ETag"] == f'"{stored.digest}"'


def test_several_ranges_come_as_parts(client: TestClient, stored: Blob) -> None:
    answer = client.get(stored.url, headers={"Range": "bytes=0-9,100-109"})
    assert answer.status_code == 206
    assert answer.headers["Content-Type"].startswith("multipart/byteranges")
    assert stored.content[:10] in answer.content
    assert stored.content[100:110] in answer.content


def test_more_ranges_than_bounded_send_the_whole_file_once(client: TestClient, stored: Blob) -> None:
    many = ",".join(f"{number}-{number}" for number in range(0, 404, 4))
    answer = client.get(stored.url, headers={"Range": f"bytes={many}"})
    assert (answer.status_code, answer.content) == (200, stored.content)


def test_a_range_past_the_end_is_416(client: TestClient, stored: Blob) -> None:
    answer = client.get(stored.url, headers={"Range": "bytes=999999-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(stored.content)}"


@pytest.mark.parametrize(
    ("condition", "status"), [("its own", 206), ('"' + "0" * 64 + '"', 200), ('W/"its own"', 200)]
)
def test_a_range_is_given_only_of_the_same_bytes(
    client: TestClient, stored: Blob, condition: str, status: int
) -> None:
    if_range = f'"{stored.digest}"' if condition == "its own" else condition
    answer = client.get(stored.url, headers={"Range": "bytes=0-9", "If-Range": if_range})
    assert answer.status_code == status
    assert answer.content == (stored.content[:10] if status == 206 else stored.content)


@pytest.mark.parametrize("tags", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_known_bytes_are_not_sent_again(client: TestClient, stored: Blob, tags: str) -> None:
    answer = client.get(stored.url, headers={"If-None-Match": tags.format(stored.digest)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == f'"{stored.digest}"'


def test_other_bytes_are_sent(client: TestClient, stored: Blob) -> None:
    assert client.get(stored.url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_bytes_are_never_run_by_a_browser(client: TestClient) -> None:
    page = Blob(b"<script>alert(1)</script>")
    client.put(page.url, content=page.content)
    headers = client.get(page.url).headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"] == f'attachment; filename="{page.digest}"'
    assert "sandbox" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "content_type", "disposition"),
    [
        (layout.HONESTY, "text/plain; charset=utf-8", 'inline; filename="honesty_report.json"'),
        (layout.CHAT, "text/plain; charset=utf-8", 'inline; filename="chat_benchmark.jsonl"'),
        (SFT_WEIGHTS, "application/octet-stream", 'attachment; filename="model.safetensors"'),
    ],
)
def test_a_file_of_a_run_is_named_and_typed(
    client: TestClient, run: FinishedRun, path: str, content_type: str, disposition: str
) -> None:
    answer = client.get(url_of(run, path))
    assert (answer.status_code, answer.content) == (200, run.files[path])
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Content-Disposition"] == disposition
    assert answer.headers["ETag"] == f'"{run.digest(path)}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_file_of_a_run_is_readable_by_digest(client: TestClient, run: FinishedRun) -> None:
    answer = client.get(f"/api/v1/artifacts/{run.digest(SFT_WEIGHTS)}", headers={"Range": "bytes=1-2"})
    assert (answer.status_code, answer.content) == (206, run.files[SFT_WEIGHTS][1:3])


def test_another_project_cannot_read_a_run(stranger: TestClient, run: FinishedRun) -> None:
    for path in ("", f"/{SFT_WEIGHTS}"):
        answer = stranger.get(f"/api/v1/runs/{run.run_id}/artifacts{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert stranger.get(f"/api/v1/artifacts/{run.digest(SFT_WEIGHTS)}").status_code == 404


@pytest.mark.parametrize("scope", ["runs:read", "infer", "artifacts:write"])
def test_reading_needs_its_scope(
    client: TestClient, run: FinishedRun, key_for: Callable[..., dict[str, str]], scope: str
) -> None:
    answer = client.get(url_of(run, SFT_WEIGHTS), headers=key_for(scope))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_scope")


def test_bytes_gone_from_the_store_are_not_found(app: FastAPI, client: TestClient, run: FinishedRun) -> None:
    app.state.store.path(run.digest(layout.CHAT)).unlink()
    answer = client.get(url_of(run, layout.CHAT))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


TRAVERSAL = [
    "..",
    "../corpus.txt",
    "../../../../etc/passwd",
    "base/../../corpus.txt",
    "base/..",
    "./corpus.txt",
    "/etc/passwd",
    "//etc/passwd",
    "corpus.txt/",
    "base//best_checkpoint",
    "..\\corpus.txt",
    "C:\\windows",
    "base\\train_report.json",
    "corpus.txt\x00.png",
    "\x00",
    "corpus.txt\r",
    " corpus.txt",
    ".hidden",
    "~/corpus.txt",
    "%2e%2e/corpus.txt",
    "\uff0e\uff0e/corpus.txt",
    "..\u2215corpus.txt",
    "c\u043erpus.txt",
    "corpus.txt\u202e",
    "a" * 600,
    "a/" * 300 + "a",
]


def test_a_path_that_is_no_plain_name_is_refused(app: FastAPI, admin_key: str, run: FinishedRun) -> None:
    key = {"Authorization": f"Bearer {admin_key}"}
    answers = {path: send_raw(app, "GET", url_of(run, path), key) for path in TRAVERSAL}
    refused = {
        path for path, got in answers.items() if got.status == 400 and b"bad_artifact_path" in got.body
    }
    assert set(TRAVERSAL) - refused == set()


@pytest.mark.parametrize("path", ["%2e%2e/corpus.txt", "..%2fcorpus.txt", "base/%2e%2e/corpus.txt", "%00"])
def test_an_encoded_path_is_refused_as_well(client: TestClient, run: FinishedRun, path: str) -> None:
    answer = client.get(url_of(run, path))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_artifact_path")


@pytest.mark.parametrize("run_id", ["%00", "run_x", "%F0%9F%90%8D"])
def test_an_odd_run_is_not_found(client: TestClient, run_id: str) -> None:
    for url in (f"/api/v1/runs/{run_id}/artifacts/corpus.txt", f"/api/v1/runs/{run_id}/artifacts"):
        assert client.get(url).status_code == 404


def test_a_saved_name_cannot_break_out_of_its_header(client: TestClient, run: FinishedRun) -> None:
    message = Message()
    message["Content-Disposition"] = client.get(url_of(run, layout.CORPUS)).headers["Content-Disposition"]
    assert message.get_filename() == "corpus.txt"
