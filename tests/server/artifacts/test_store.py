"""The store itself: whole files or none, partials that go on, and leftovers that go."""

import hashlib
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.canonical import sha256_hex
from picochat_contract.errors import Code, ContractError
from picochat_server.artifacts import store as store_module
from picochat_server.artifacts.store import LocalStore, OffsetError
from support.finished_run import store_bytes

CONTENT = b"some bytes"
DIGEST = sha256_hex(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def add(store: LocalStore, content: bytes = CONTENT) -> None:
    with store.begin() as upload:
        upload.write(content)
        upload.seal(sha256_hex(content))
        upload.publish(sha256_hex(content))


def incoming(store: LocalStore) -> list[Path]:
    return list((store.root / "incoming").iterdir())


def test_an_object_lies_in_fan_out_folders_and_is_read_only(store: LocalStore) -> None:
    add(store)
    path = store.root / "objects" / DIGEST[:2] / DIGEST[2:4] / DIGEST
    assert path == store.path(DIGEST)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert (store.has(DIGEST), store.size(DIGEST), store.hash_now(DIGEST)) == (True, len(CONTENT), DIGEST)
    assert incoming(store) == []


def test_nothing_is_visible_before_it_is_published(store: LocalStore) -> None:
    with store.begin() as upload:
        upload.write(CONTENT)
        upload.seal(DIGEST)
        assert not store.has(DIGEST)
    assert incoming(store) == []


def test_wrong_bytes_are_removed(store: LocalStore) -> None:
    with store.begin() as upload:
        upload.write(b"other bytes")
        with pytest.raises(ContractError) as caught:
            upload.seal(DIGEST)
    assert caught.value.code is Code.DIGEST_MISMATCH
    assert (store.has(DIGEST), incoming(store)) == (False, [])


def test_uploading_again_mends_a_damaged_object(store: LocalStore) -> None:
    add(store)
    store.path(DIGEST).chmod(0o644)
    store.path(DIGEST).write_bytes(b"rotten")
    add(store)
    assert store.hash_now(DIGEST) == DIGEST


def test_a_reader_keeps_its_version_while_the_object_is_replaced(store: LocalStore) -> None:
    add(store)
    with store.path(DIGEST).open("rb") as reader:
        add(store)
        assert reader.read() == CONTENT


def test_many_writers_of_one_digest_end_with_one_whole_file(store: LocalStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: add(store), range(32)))
    assert store.hash_now(DIGEST) == DIGEST
    assert incoming(store) == []


@pytest.mark.parametrize(
    "digest", ["", "abc", "../" + "a" * 61, "A" * 64, "a" * 63, "a" * 64 + "\n", "g" * 64]
)
def test_what_is_not_a_digest_has_no_path(store: LocalStore, digest: str) -> None:
    with pytest.raises(ContractError) as caught:
        store.path(digest)
    assert caught.value.code is Code.BAD_DIGEST


def test_parts_make_a_whole(store: LocalStore) -> None:
    for part in (b"some", b" ", b"bytes"):
        with store.resume("me", DIGEST) as upload:
            upload.write(part)
    with store.resume("me", DIGEST) as upload:
        assert upload.size == len(CONTENT)
        upload.seal(DIGEST)
        upload.publish(DIGEST)
    assert (store.hash_now(DIGEST), incoming(store)) == (DIGEST, [])


def test_a_part_at_another_offset_names_the_one_expected(store: LocalStore) -> None:
    with store.resume("me", DIGEST) as upload:
        upload.write(b"some")
        with pytest.raises(OffsetError) as caught:
            upload.check_offset(9)
    assert caught.value.expected == 4


def test_partials_of_two_owners_are_apart(store: LocalStore) -> None:
    with store.resume("me", DIGEST) as upload:
        upload.write(b"some")
    assert (store.partial_size("me", DIGEST), store.partial_size("you", DIGEST)) == (4, 0)


def test_two_requests_never_write_one_partial(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_PATIENCE_SECONDS", 0.05)
    with store.resume("me", DIGEST), pytest.raises(OffsetError, match="another request"):
        store.resume("me", DIGEST)
    store.resume("me", DIGEST).close()


def test_a_cut_upload_is_kept_unless_a_longer_one_is_there(store: LocalStore) -> None:
    for content in (b"some", b"so", b"some by"):
        with store.begin() as upload:
            upload.write(content)
            upload.keep("me", DIGEST)
    assert store.partial_size("me", DIGEST) == len(b"some by")
    with store.resume("me", DIGEST) as upload:
        upload.write(b"tes")
        upload.seal(DIGEST)
        upload.publish(DIGEST)
    assert (store.hash_now(DIGEST), incoming(store)) == (DIGEST, [])


def test_leftovers_go_after_a_day(store: LocalStore) -> None:
    for owner in ("old", "new"):
        with store.resume(owner, DIGEST) as upload:
            upload.write(b"some")
    an_hour_over_a_day_ago = time.time() - 25 * 3600
    os.utime(store.partial_path("old", DIGEST), (an_hour_over_a_day_ago,) * 2)
    assert store.clean() == 1
    assert (store.partial_size("old", DIGEST), store.partial_size("new", DIGEST)) == (0, 4)


def test_an_upload_sweeps_leftovers_on_its_way(store: LocalStore) -> None:
    leftover = store.root / "incoming" / "crashed.tmp"
    leftover.touch()
    os.utime(leftover, (0, 0))
    add(store)
    assert incoming(store) == []


# --- hashing ahead ---


def counted_hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each file that is hashed."""
    hashed: list[str] = []
    real = hashlib.file_digest

    def digest(file: Any, name: str) -> Any:
        hashed.append(file.name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    return hashed


def test_a_hash_made_ahead_is_used_once(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store_bytes(store, b"weights")
    hashed = counted_hashes(monkeypatch)
    store.hash_ahead(digest)
    assert len(hashed) == 1
    assert store.hash_now(digest) == digest
    assert len(hashed) == 1
    assert store.hash_now(digest) == digest
    assert len(hashed) == 2


def test_a_file_that_changed_since_is_hashed_again(store: LocalStore) -> None:
    digest = store_bytes(store, b"weights")
    store.hash_ahead(digest)
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"wEights")
    assert store.hash_now(digest) == sha256_hex(b"wEights")


def test_a_hash_made_long_ago_does_not_count(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store_bytes(store, b"weights")
    store.hash_ahead(digest)
    hashed = counted_hashes(monkeypatch)
    monkeypatch.setattr(store_module, "AHEAD_SECONDS", 0.0)
    assert store.hash_now(digest) == digest
    assert len(hashed) == 1


def test_what_is_gone_is_gone(store: LocalStore) -> None:
    digest = store_bytes(store, b"weights")
    store.hash_ahead(digest)
    store.path(digest).unlink()
    assert store.hash_now(digest) is None
    store.hash_ahead(digest)
    assert store.hash_now(digest) is None
