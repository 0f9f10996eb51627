"""What a host keeps between stages: found again, checked, and never more than it may."""

import hashlib
import os
from pathlib import Path

import pytest
from picochat_contract.api import ArtifactOut
from picochat_contract.layout import Kind
from picochat_contract.manifest import StageJob
from picochat_contract.stages import StageName
from picochat_worker.digest_cache import DigestCache
from picochat_worker.workspace import Workspace, clean_workspaces

from .conftest import make_claim


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(cache: DigestCache, folder: Path, content: bytes) -> str:
    digest = digest_of(content)
    file = folder / f"made-{digest[:8]}"
    file.write_bytes(content)
    cache.keep(digest, file)
    file.unlink()
    return digest


def has(cache: DigestCache, folder: Path, digest: str) -> bool:
    target = folder / "taken"
    target.unlink(missing_ok=True)
    return cache.take(digest, target)


def test_what_was_kept_is_there_after_its_file_is_gone(tmp_path: Path) -> None:
    digest = kept(DigestCache(tmp_path, 100), tmp_path, b"weights")
    assert has(DigestCache(tmp_path, 100), tmp_path, digest), "also for a worker that was started again"
    assert (tmp_path / "taken").read_bytes() == b"weights"


def test_an_unknown_digest_is_not_there(tmp_path: Path) -> None:
    assert not has(DigestCache(tmp_path, 100), tmp_path, "0" * 64)


def test_bytes_that_changed_are_dropped_and_not_used(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path, 100)
    digest = kept(cache, tmp_path, b"weights")
    assert has(cache, tmp_path, digest)
    (tmp_path / "taken").write_bytes(b"written into by a stage")
    assert not has(cache, tmp_path, digest)
    assert not (tmp_path / "taken").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path, 10)
    first, second = kept(cache, tmp_path, b"11111"), kept(cache, tmp_path, b"22222")
    assert has(cache, tmp_path, first)
    third = kept(cache, tmp_path, b"33333")
    assert [has(cache, tmp_path, digest) for digest in (first, second, third)] == [True, False, True]


def test_order_and_bound_hold_over_a_restart(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path, 20)
    digests = [kept(cache, tmp_path, content) for content in (b"11111", b"22222", b"33333")]
    for age, digest in enumerate(digests):
        os.utime(tmp_path / "cache" / digest, (100 - age, 100 - age))  # the last one is the oldest
    smaller = DigestCache(tmp_path, 10)
    assert [has(smaller, tmp_path, digest) for digest in digests] == [True, True, False]


@pytest.mark.parametrize("max_bytes", [0, 4])
def test_a_file_beyond_the_bound_is_not_kept(tmp_path: Path, max_bytes: int) -> None:
    cache = DigestCache(tmp_path, max_bytes)
    assert not has(cache, tmp_path, kept(cache, tmp_path, b"12345"))


def test_a_stage_gets_what_this_host_had_and_fetches_the_rest_once(tmp_path: Path) -> None:
    known, new = b"kept", b"fetched"
    kept(DigestCache(tmp_path, 100), tmp_path, known)
    inputs = [
        ArtifactOut(
            path=path,
            sha256=digest_of(content),
            size_bytes=len(content),
            kind=Kind.DATA,
            stage=StageName.DATASET,
            created_at="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
        )
        for path, content in {"a.txt": known, "b.txt": new}.items()
    ]
    fetched: list[str] = []

    def fetch(digest: str, target: Path) -> None:
        fetched.append(digest)
        target.write_bytes(new)

    for epoch in (1, 2):
        claim = make_claim(inputs=[file.model_dump(mode="json") for file in inputs], epoch=epoch)
        workspace = Workspace(tmp_path, claim, cache=DigestCache(tmp_path, 100))
        workspace.lay(StageJob(stage=StageName.BASE, config={}), fetch)
        assert (workspace.run / "a.txt").read_bytes() == known
        assert (workspace.run / "b.txt").read_bytes() == new
        clean_workspaces(tmp_path)
    assert fetched == [digest_of(new)]
