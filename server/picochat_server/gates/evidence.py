"""What a verdict rests on, read back from the artifact store and hashed again.

A file whose bytes are not the recorded ones, or that cannot be parsed, is not passed on: `decide` then finds it
missing, and a fault says what really happened. Nothing here can make a verdict better.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from picochat_contract.api import ArtifactOut
from picochat_contract.gate import Check, CheckStatus, DataDigests, EvidenceFile, Verdict
from picochat_contract.layout import (
    CHAT,
    CORPUS_MANIFEST,
    EVAL,
    EVIDENCE_PATHS,
    GATE_REPORT,
    PREFLIGHT,
    SFT_CHECKPOINT,
    WEIGHTS,
)

from picochat_server.artifacts.json_files import Unusable, changed, read_json
from picochat_server.artifacts.store import LocalStore
from picochat_server.models import PreflightReportRow

SUBJECT = f"{SFT_CHECKPOINT}/{WEIGHTS}"
HASHED = {"checkpoint": SUBJECT, "corpus": CORPUS_MANIFEST, "chat": CHAT, "eval_data": EVAL}
"""Files whose bytes are hashed at every decision, by the name of the check that reports a difference."""
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


def collect(store: LocalStore, artifacts: list[ArtifactOut]) -> Collected:
    """Read the evidence among a run's artifacts."""
    by_path = {artifact.path: artifact for artifact in artifacts}
    faults = [
        _fault(name, message)
        for name, path in HASHED.items()
        for message in _byte_faults(store, by_path.get(path), path)
    ]
    if not any(fault.id == "stored_corpus" for fault in faults):
        faults += [
            _fault("corpus", message) for message in _shard_faults(store, by_path[CORPUS_MANIFEST], by_path)
        ]
    files: dict[str, EvidenceFile] = {}
    for name, path in EVIDENCE_PATHS.items():
        if (artifact := by_path.get(path)) is None:
            continue  # `decide` says that it is missing, where the policy asks for it
        try:
            files[name] = EvidenceFile(path=path, sha256=artifact.sha256, data=read_json(store, artifact))
        except Unusable as error:
            faults.append(_fault(name, str(error)))
    return Collected(
        subject=_digest(by_path, SUBJECT),
        data=DataDigests(
            corpus=_digest(by_path, CORPUS_MANIFEST), chat=_digest(by_path, CHAT), eval=_digest(by_path, EVAL)
        ),
        files=files,
        faults=tuple(faults),
        advice=_advice(store, by_path.get(GATE_REPORT)),
    )


def with_own_preflight(found: Collected, judged: PreflightReportRow | None) -> Collected:
    """What the preflight stage says of itself is advice: the server's own judgement of its facts takes its place."""
    file = found.files.get("preflight")
    if file is None:
        return found
    if judged is None or judged.sha256 != file.sha256:
        others = {name: other for name, other in found.files.items() if name != "preflight"}
        message = f"this server did not judge {PREFLIGHT} with sha256 {file.sha256[:12]} for this run"
        return replace(found, files=others, faults=(*found.faults, _fault("preflight", message)))
    if not isinstance(file.data, dict):
        return found  # `decide` says that it is no evidence
    data = file.data | {name: judged.report[name] for name in ("status", "summary", "checks")}
    return replace(found, files=found.files | {"preflight": replace(file, data=data)})


def _byte_faults(store: LocalStore, artifact: ArtifactOut | None, path: str) -> Iterator[str]:
    if artifact is None:
        yield f"the run has no {path}"
        return
    found = store.hash_now(artifact.sha256)
    if found != artifact.sha256:
        yield changed(path, artifact.sha256, found)


def _shard_faults(store: LocalStore, manifest: ArtifactOut, by_path: dict[str, ArtifactOut]) -> Iterator[str]:
    """The manifest stands for the corpus: its shards must be those that the run recorded, and be there.

    Their bytes are not hashed again here: workers checked them when they trained on them, and a corpus can have
    many gigabytes.
    """
    try:
        shards = {str(shard["path"]): shard["sha256"] for shard in read_json(store, manifest)["shards"]}
    except Unusable as error:
        yield str(error)
        return
    except (KeyError, TypeError):
        yield f"{CORPUS_MANIFEST} does not list the corpus's shards with path and sha256"
        return
    recorded = {path: by_path[path].sha256 for path in shards if path in by_path}
    if wrong := [path for path, sha256 in shards.items() if recorded.get(path) != sha256]:
        yield f"{CORPUS_MANIFEST} names {len(wrong)} shards that the run did not write so, first {wrong[0]}"
    elif gone := [path for path, sha256 in recorded.items() if not store.has(sha256)]:
        yield changed(gone[0], recorded[gone[0]], None)


def _advice(store: LocalStore, artifact: ArtifactOut | None) -> Verdict | None:
    """What the trainer's gate stage said; None where its report cannot be read."""
    if artifact is None:
        return None
    try:
        return Verdict(read_json(store, artifact)["verdict"])
    except (Unusable, KeyError, TypeError, ValueError):
        return None  # advice only: it never counts


def _digest(by_path: dict[str, ArtifactOut], path: str) -> str:
    return by_path[path].sha256 if path in by_path else ""


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
