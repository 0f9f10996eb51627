"""Reading evidence back from the store: what is not what it was is a fault, never a value."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from picochat_contract import layout
from picochat_contract.api import ArtifactOut
from picochat_contract.canonical import sha256_hex
from picochat_contract.gate import Verdict, decide
from picochat_contract.policies import POLICIES
from picochat_server.artifacts import json_files
from picochat_server.artifacts.store import LocalStore
from picochat_server.gates.evidence import Collected, collect
from support.finished_run import SFT_WEIGHTS, STAGE_OF, approved_files, store_bytes

UNUSABLE = {
    "empty": b"",
    "cut": b"{",
    "not utf-8": b"\xff\xfe",
    "endless": b"[" * 100_000,
    "null": b"null",
    "list": b"[]",
    "text": b'"approved"',
    "nan": b'{"subject": NaN}',
    "long number": b"9" * 10_000,
}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def collected(store: LocalStore, files: dict[str, bytes]) -> Collected:
    return collect(store, [artifact(store, path, content) for path, content in files.items()])


def artifact(store: LocalStore, path: str, content: bytes) -> ArtifactOut:
    return ArtifactOut(
        path=path,
        sha256=store_bytes(store, content),
        size_bytes=len(content),
        kind=layout.kind_of(path),
        stage=STAGE_OF[path],
        created_at=datetime.now(UTC),
    )


def test_sound_files_come_without_faults(store: LocalStore) -> None:
    files = approved_files()
    found = collected(store, files)
    assert found.faults == ()
    assert found.subject == sha256_hex(files[SFT_WEIGHTS])
    assert found.data.eval == sha256_hex(files[layout.EVAL])
    assert found.advice is Verdict.APPROVED


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize(("name", "path"), sorted(layout.EVIDENCE_PATHS.items()))
def test_unusable_evidence_blocks(store: LocalStore, name: str, path: str, content: bytes) -> None:
    found = collected(store, approved_files() | {path: content})
    report = decide(POLICIES["first_release"], found.files, subject=found.subject, data=found.data)
    assert f"evidence_{name}" in {check.id for check in report.blocking}


def test_text_that_is_not_json_is_named(store: LocalStore) -> None:
    (fault,) = collected(store, approved_files() | {layout.EVAL_REPORT: b"{"}).faults
    assert fault.id == "stored_eval"
    assert fault.message.startswith("eval/eval_report.json is not JSON")


def test_a_report_past_the_size_limit_is_not_read(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", 10)
    found = collected(store, approved_files())
    assert found.files == {}
    assert all("evidence has at most 10" in fault.message for fault in found.faults)
