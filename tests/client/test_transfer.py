import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from picochat_client import Client, NotFound, ServerUnreachable, TransferCorrupt, _transfer
from picochat_contract.api import ArtifactOut
from picochat_contract.errors import Code, ContractError

from .fake_server import FakeServer
from .scripted import FakeRun, problem

CONTENT = bytes(range(256)) * 40  # 10 KiB
WEIGHTS = "sft/checkpoint/model.safetensors"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def run(server: FakeServer) -> FakeRun:
    made = server.add_run()
    made.artifacts = {WEIGHTS: CONTENT, "sft/checkpoint/config.json": b"{}", "tokenizer.json": b"[]"}
    return made


@pytest.fixture
def weights(client: Client, run: FakeRun) -> ArtifactOut:
    return client.artifacts.find(run.id, WEIGHTS)


class CutDownloads:
    """Breaks each of the first answers with bytes after `cut_after` bytes of body."""

    def __init__(self, server: FakeServer, cuts: int, cut_after: int) -> None:
        self.server, self.cuts, self.cut_after, self.busy = server, cuts, cut_after, False
        self.ranges: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response | None:
        if self.busy or not request.url.path.endswith(WEIGHTS):
            return None
        self.ranges.append(request.headers.get("Range"))
        if self.cuts == 0:
            return None
        self.cuts -= 1
        self.busy = True
        whole = self.server.handle(request)
        self.busy = False

        def body() -> Iterator[bytes]:
            yield whole.content[: self.cut_after]
            raise httpx.ReadError("cut on purpose", request=request)

        headers = {name: value for name, value in whole.headers.items() if name != "content-length"}
        return httpx.Response(whole.status_code, headers=headers, content=body())


def test_a_cut_download_goes_on_where_it_broke(
    client: Client, server: FakeServer, run: FakeRun, weights: ArtifactOut, tmp_path: Path
) -> None:
    cuts = CutDownloads(server, cuts=3, cut_after=1000)
    server.faults.append(cuts)
    target = client.artifacts.download(run.id, weights, tmp_path / "x" / "model")
    assert target.read_bytes() == CONTENT
    assert cuts.ranges == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    assert [file.name for file in target.parent.iterdir()] == ["model"]


def test_a_download_goes_on_from_what_an_earlier_process_left(
    client: Client, server: FakeServer, run: FakeRun, weights: ArtifactOut, tmp_path: Path
) -> None:
    server.fail(*[httpx.ConnectError] * 0)
    (tmp_path / f".model.{weights.sha256[:16]}.part").write_bytes(CONTENT[:5000])
    client.artifacts.download(run.id, weights, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == CONTENT
    assert server.requests[-1].headers["Range"] == "bytes=5000-"


@pytest.mark.parametrize("left", [b"x" * 5000, b"x" * len(CONTENT), CONTENT + b"x"])
def test_a_wrong_leftover_is_thrown_away_and_fetched_anew(
    client: Client, run: FakeRun, weights: ArtifactOut, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / f".model.{weights.sha256[:16]}.part").write_bytes(left)
    client.artifacts.download(run.id, weights, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == CONTENT


def test_wrong_bytes_never_reach_the_target(
    client: Client, run: FakeRun, weights: ArtifactOut, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(b"old")
    run.artifacts[WEIGHTS] = CONTENT[:-1] + b"!"
    with pytest.raises(TransferCorrupt, match="should have sha256"):
        client.artifacts.download(run.id, weights, tmp_path / "model")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model", b"old")]


def test_a_file_that_is_there_already_is_not_fetched_again(
    client: Client, server: FakeServer, run: FakeRun, weights: ArtifactOut, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(CONTENT)
    before = len(server.requests)
    client.artifacts.download(run.id, weights, tmp_path / "model")
    assert len(server.requests) == before


def test_a_download_gives_up_when_the_server_stays_away(
    client: Client, server: FakeServer, run: FakeRun, weights: ArtifactOut, tmp_path: Path
) -> None:
    server.fail(*[httpx.ConnectError] * 200)
    with pytest.raises(ServerUnreachable):
        client.artifacts.download(run.id, weights, tmp_path / "model")


def test_a_path_from_the_server_cannot_lead_out_of_the_folder(
    client: Client, run: FakeRun, weights: ArtifactOut, tmp_path: Path
) -> None:
    hostile = weights.model_copy(update={"path": "../../evil"})
    with pytest.raises(ContractError) as caught:
        client.artifacts.download_into(run.id, hostile, tmp_path)
    assert caught.value.code is Code.BAD_ARTIFACT_PATH


def test_below_takes_whole_folders_only(client: Client, run: FakeRun) -> None:
    assert [found.path for found in client.artifacts.below(run.id, "sft/checkpoint")] == [
        WEIGHTS,
        "sft/checkpoint/config.json",
    ]
    with pytest.raises(NotFound, match="below 'sft/check/'"):
        client.artifacts.below(run.id, "sft/check")


def test_find_names_the_nearest_path(client: Client, run: FakeRun) -> None:
    with pytest.raises(NotFound, match=r"did you mean 'tokenizer\.json'"):
        client.artifacts.find(run.id, "tokeniser.json")


def test_uploads_only_what_the_server_lacks(client: Client, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a")
    assert client.artifacts.upload(tmp_path / "a.txt") == digest(b"a")
    assert client.artifacts.upload(tmp_path / "a.txt") == digest(b"a")
    assert server.blobs == {digest(b"a"): b"a"}
    assert len(server.calls("PUT", f"/artifacts/{digest(b'a')}")) == 1


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transfer, "PART_BYTES", 1000)


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_goes_up_in_parts(client: Client, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(CONTENT)
    done: list[tuple[int, int]] = []
    client.artifacts.upload(tmp_path / "big.txt", lambda now, total: done.append((now, total)))
    assert server.blobs == {digest(CONTENT): CONTENT}
    assert len(server.calls("PATCH", f"/artifacts/{digest(CONTENT)}")) == 11
    assert done[0] == (1000, len(CONTENT))
    assert done[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("stored", [1, 3700, len(CONTENT) - 1, len(CONTENT)])
def test_an_upload_goes_on_from_the_offset_that_the_server_names(
    client: Client, server: FakeServer, tmp_path: Path, stored: int
) -> None:
    (tmp_path / "big.txt").write_bytes(CONTENT)
    server.partial[digest(CONTENT)] = bytearray(CONTENT[:stored])
    client.artifacts.upload(tmp_path / "big.txt")
    assert server.blobs == {digest(CONTENT): CONTENT}
    offsets = [request.headers["Upload-Offset"] for request in server.requests[1:3]]
    assert offsets == ["0", str(stored)]


@pytest.mark.usefixtures("small_parts")
def test_a_part_whose_answer_was_lost_is_not_stored_twice(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "big.txt").write_bytes(CONTENT)
    lost = 2

    def lose_answer(request: httpx.Request) -> None:
        nonlocal lost
        if request.method == "PATCH" and lost and server.partial:
            lost -= 1
            server.patch_artifacts(request, digest(CONTENT))
            raise httpx.ReadError("lost on purpose", request=request)

    server.faults.append(lose_answer)
    client.artifacts.upload(tmp_path / "big.txt")
    assert server.blobs == {digest(CONTENT): CONTENT}


def test_a_file_that_changes_while_it_goes_up_is_named(
    client: Client, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"new bytes")
    with pytest.raises(TransferCorrupt, match="changed while it was uploaded"):
        client.artifacts.upload_all({tmp_path / "a.txt": digest(b"old bytes")})
    assert server.blobs == {}


def test_an_offset_conflict_that_names_no_offset_is_passed_on(
    client: Client, server: FakeServer, tmp_path: Path, small_parts: None
) -> None:
    (tmp_path / "big.txt").write_bytes(CONTENT)

    def refuse(request: httpx.Request) -> httpx.Response | None:
        return problem(409, Code.UPLOAD_OFFSET, "no") if request.method == "PATCH" else None

    server.faults.append(refuse)
    with pytest.raises(Exception, match="no") as caught:
        client.artifacts.upload(tmp_path / "big.txt")
    assert getattr(caught.value, "code", None) == Code.UPLOAD_OFFSET
