from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from picochat_contract.api import ClaimIn
from picochat_contract.canonical import sha256_hex
from picochat_contract.errors import Code
from picochat_worker.control_plane import AttemptChannel, ControlPlane
from picochat_worker.errors import BadDownload, LeaseLost, Rejected, Unreachable

from .fake_server import KEY, FakeServer

ASK = ClaimIn(worker="w", host="h", device="cpu")
DATA = b"0123456789" * 100


@pytest.fixture
def control_plane(server: FakeServer) -> Iterator[ControlPlane]:
    control_plane = ControlPlane(server.url, KEY, timeout_seconds=5)
    yield control_plane
    control_plane.close()


@pytest.fixture
def channel(control_plane: ControlPlane, add_stage: Callable[..., str]) -> AttemptChannel:
    add_stage("succeed")
    claim = control_plane.claim(ASK)
    assert claim
    return AttemptChannel(control_plane, claim, part_bytes=256)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def test_no_work_is_none(control_plane: ControlPlane) -> None:
    assert control_plane.claim(ASK) is None


def test_closed_port_is_unreachable(control_plane: ControlPlane, server: FakeServer) -> None:
    server.stop()
    with pytest.raises(Unreachable):
        control_plane.claim(ASK)


def test_wrong_key_is_rejected_with_its_code(server: FakeServer) -> None:
    control_plane = ControlPlane(server.url, "wrong", timeout_seconds=5)
    with pytest.raises(Rejected) as caught:
        control_plane.claim(ASK)
    control_plane.close()
    assert (caught.value.status, caught.value.code) == (401, Code.UNAUTHENTICATED)


def test_lost_lease_is_told_from_other_conflicts(channel: AttemptChannel, server: FakeServer) -> None:
    server.lose(server.attempt())
    with pytest.raises(LeaseLost):
        channel.heartbeat(1, timeout_seconds=5)


def test_file_goes_up_in_parts(channel: AttemptChannel, server: FakeServer, file: Path) -> None:
    channel.upload(sha256_hex(DATA), file)
    assert server.blobs[sha256_hex(DATA)] == DATA
    assert [seen.method for seen in server.seen].count("PATCH") == 4


def test_cut_upload_goes_on_where_the_server_says(
    channel: AttemptChannel, server: FakeServer, file: Path
) -> None:
    server.cut_uploads = 1
    with pytest.raises(Unreachable):
        channel.upload(sha256_hex(DATA), file)
    channel.upload(sha256_hex(DATA), file)
    assert server.blobs[sha256_hex(DATA)] == DATA


def test_upload_of_other_bytes_is_rejected(channel: AttemptChannel, file: Path) -> None:
    with pytest.raises(Rejected) as caught:
        channel.upload("0" * 64, file)
    assert caught.value.code == Code.DIGEST_MISMATCH


def test_empty_file_goes_up(channel: AttemptChannel, server: FakeServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    channel.upload(sha256_hex(b""), empty)
    assert server.blobs[sha256_hex(b"")] == b""


def test_missing_asks_for_each_digest(channel: AttemptChannel, server: FakeServer) -> None:
    known = server.store(b"known")
    assert channel.missing([known, "0" * 64]) == {"0" * 64}


def test_download_goes_on_after_a_break(channel: AttemptChannel, server: FakeServer, tmp_path: Path) -> None:
    digest = server.store(DATA)
    (tmp_path / "got.part").write_bytes(DATA[:300])
    channel.download(digest, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA
    assert not (tmp_path / "got.part").exists()


def test_download_with_other_bytes_is_refused(
    channel: AttemptChannel, server: FakeServer, tmp_path: Path
) -> None:
    digest = server.store(DATA)
    server.corrupt.add(digest)
    with pytest.raises(BadDownload):
        channel.download(digest, tmp_path / "got")
    assert list(tmp_path.glob("got*")) == []


def test_transfer_can_be_broken_off(channel: AttemptChannel, server: FakeServer, file: Path) -> None:
    def lost() -> None:
        raise LeaseLost("meanwhile")

    with pytest.raises(LeaseLost):
        channel.upload(sha256_hex(DATA), file, lost)
    assert sha256_hex(DATA) not in server.blobs
