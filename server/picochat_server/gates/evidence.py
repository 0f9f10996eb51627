"""What a verdict rests on, read back from the artifact store and hashed again.

A file whose bytes are not the recorded ones, or that cannot be parsed, is not passed on: `decide` then finds it
missing, and a fault says what really happened. Nothing here can make a verdict better.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from picochat_contract.api import ArtifactOut
from picochat_contract.canonical import canonical_json, sha256_hex
from picochat_contract.gate import Check, CheckStatus, DataDigests, EvidenceFile, Verdict
from picochat_contract.layout import (
    CHAT,
    CORPUS,
    EVAL,
    EVIDENCE_PATHS,
    GATE_REPORT,
    SFT_CHECKPOINT,
    WEIGHTS,
)

from picochat_server.artifacts.store import LocalStore

SUBJECT = f"{SFT_CHECKPOINT}/{WEIGHTS}"
MAX_EVIDENCE_BYTES = 64 << 20
AGAIN = "run the stage that writes it again, so that its bytes and its record agree"


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Evidence that is what it was when its stage ended, and a fault for everything that is not."""

    subject: str
    """Recorded sha256 of the weights on trial; empty where no weights were recorded."""
    data: DataDigests
    files: dict[str, EvidenceFile]
    faults: tuple[Check, ...]
    advice: Verdict | None


class Unusable(Exception):  # noqa: N818 - reads as what happened
    """A stored file cannot be used; the message says why."""


def collect(store: LocalStore, artifacts: list[ArtifactOut]) -> Collected:
    """Read the evidence among a run's artifacts."""
    by_path = {artifact.path: artifact for artifact in artifacts}
    faults = [
        _fault(name, message)
        for name, path in {"checkpoint": SUBJECT, "corpus": CORPUS, "chat": CHAT, "eval_data": EVAL}.items()
        for message in _byte_faults(store, by_path.get(path), path)
    ]
    files: dict[str, EvidenceFile] = {}
    for name, path in EVIDENCE_PATHS.items():
        if (artifact := by_path.get(path)) is None:
            continue  # `decide` says that it is missing, where the policy asks for it
        try:
            files[name] = EvidenceFile(path=path, sha256=artifact.sha256, data=_read_json(store, artifact))
        except Unusable as error:
            faults.append(_fault(name, str(error)))
    return Collected(
        subject=_digest(by_path, SUBJECT),
        data=DataDigests(
            corpus=_digest(by_path, CORPUS), chat=_digest(by_path, CHAT), eval=_digest(by_path, EVAL)
        ),
        files=files,
        faults=tuple(faults),
        advice=_advice(store, by_path.get(GATE_REPORT)),
    )


def _byte_faults(store: LocalStore, artifact: ArtifactOut | None, path: str) -> Iterator[str]:
    if artifact is None:
        yield f"the run has no {path}"
        return
    found = store.hash_now(artifact.sha256)
    if found != artifact.sha256:
        yield _changed(path, artifact.sha256, found)


def _read_json(store: LocalStore, artifact: ArtifactOut) -> Any:
    if artifact.size_bytes > MAX_EVIDENCE_BYTES:
        raise Unusable(
            f"{artifact.path} has {artifact.size_bytes} bytes, evidence has at most {MAX_EVIDENCE_BYTES}"
        )
    try:
        content = store.path(artifact.sha256).read_bytes()
    except FileNotFoundError:
        raise Unusable(_changed(artifact.path, artifact.sha256, None)) from None
    found = sha256_hex(content)
    if found != artifact.sha256:
        raise Unusable(_changed(artifact.path, artifact.sha256, found))
    try:
        data = json.loads(content, parse_int=_int64)
        canonical_json(data).encode()  # what a report that quotes it has to stand: no NaN, no lone surrogate
        return data
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, brackets without end
        raise Unusable(f"{artifact.path} is not JSON: {error}") from error


def _int64(digits: str) -> int:
    """Counts are divided: one that no float holds would break the decision."""
    number = int(digits)
    if abs(number) >= 2**63:
        raise ValueError(f"a number of {len(digits)} digits, expected at most 64 bits")
    return number


def _advice(store: LocalStore, artifact: ArtifactOut | None) -> Verdict | None:
    """What the trainer's gate stage said; None where its report cannot be read."""
    if artifact is None:
        return None
    try:
        return Verdict(_read_json(store, artifact)["verdict"])
    except (Unusable, KeyError, TypeError, ValueError):
        return None  # advice only: it never counts


def _digest(by_path: dict[str, ArtifactOut], path: str) -> str:
    return by_path[path].sha256 if path in by_path else ""


def _changed(path: str, recorded: str, found: str | None) -> str:
    now = f"they now have sha256 {found[:12]}" if found else "they are gone from the store"
    return f"the stored bytes of {path} changed: recorded with sha256 {recorded[:12]}, {now}"


def _fault(name: str, message: str) -> Check:
    return Check(
        id=f"stored_{name}",
        status=CheckStatus.BLOCK,
        measured=0.0,
        threshold=None,
        comparison="present",
        message=message,
        fix=AGAIN,
        evidence=name if name in EVIDENCE_PATHS else None,
    )
