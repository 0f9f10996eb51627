"""A run in the database with real files in the store, made without workers: what gates and releases start from.

`approved_files()` is evidence, built with the contract's models, that the first_release policy approves.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import FastAPI
from picochat_contract import layout
from picochat_contract.canonical import sha256_hex
from picochat_contract.evidence import (
    AuditEvidence,
    BaseEvidence,
    EvalEvidence,
    FitEvidence,
    HonestyEvidence,
    MatrixEvidence,
    PairEvidence,
    Score,
    SftEvidence,
)
from picochat_contract.gate import CheckStatus
from picochat_contract.ids import new_id
from picochat_contract.manifest import OutputFile
from picochat_contract.preflight import PreflightCheck, PreflightRecord, PreflightStatus
from picochat_contract.preflight_facts import PreflightFacts
from picochat_contract.stages import StageName
from picochat_contract.states import DesiredState, RunState, StageState
from picochat_contract.stats import wilson_interval
from picochat_server.artifacts import repository as artifact_rows
from picochat_server.artifacts.service import link_outputs
from picochat_server.artifacts.store import LocalStore
from picochat_server.db import transaction
from picochat_server.gates.service import decide_run
from picochat_server.models import PreflightReportRow, Run, Stage
from pydantic import BaseModel
from sqlalchemy import select

from support.measured import sound_facts
from support.reports import corpus_manifest

SFT_WEIGHTS = f"{layout.SFT_CHECKPOINT}/{layout.WEIGHTS}"
SHARD = f"{layout.CORPUS_DIR}/part-00000.parquet"
STAGE_OF = {
    SHARD: StageName.DATASET,
    layout.CORPUS: StageName.DATASET,
    layout.CORPUS_MANIFEST: StageName.DATASET,
    layout.CHAT: StageName.DATASET,
    layout.EVAL: StageName.DATASET,
    layout.HONESTY: StageName.HONESTY,
    layout.PREFLIGHT: StageName.PREFLIGHT,
    layout.AUDIT: StageName.AUDIT,
    layout.BASE_REPORT: StageName.BASE,
    SFT_WEIGHTS: StageName.SFT,
    layout.SFT_REPORT: StageName.SFT,
    layout.FIT_REPORT: StageName.FIT,
    layout.FIT_HELDOUT_REPORT: StageName.FIT,
    layout.EVAL_REPORT: StageName.EVAL,
    layout.GATE_REPORT: StageName.GATE,
}
BEFORE_BASE = (StageName.DATASET, StageName.HONESTY, StageName.PREFLIGHT)


@dataclass(frozen=True)
class FinishedRun:
    app: FastAPI
    project_id: str
    run_id: str
    files: dict[str, bytes]

    def digest(self, path: str) -> str:
        return sha256_hex(self.files[path])

    def decide(self) -> str:
        """The server's verdict, decided and stored now."""
        state = self.app.state
        with transaction(state.sessions) as session:
            run = session.scalars(select(Run).where(Run.id == self.run_id)).one()
            return decide_run(session, state.store, state.settings, run).value

    def flip_byte(self, path: str) -> None:
        """Change one byte of a file in the store, as a faulty disk or a person with access would."""
        stored = self.app.state.store.path(self.digest(path))
        content = bytearray(stored.read_bytes())
        content[len(content) // 2] ^= 1
        stored.chmod(0o644)
        stored.write_bytes(bytes(content))


def make_finished_run(
    app: FastAPI, project_id: str, files: Mapping[str, bytes], profile: str = "first_release"
) -> FinishedRun:
    """Rows of a run whose stages wrote `files`, and the files themselves. What went on after preflight was judged."""
    with transaction(app.state.sessions) as session:
        run, stages = _rows(project_id, profile)
        session.add(run)
        session.flush()
        session.add_all(stages.values())
        session.flush()
        for content in files.values():
            store_bytes(app.state.store, content)
            artifact_rows.record(session, project_id, sha256_hex(content), len(content))
        for name, stage in stages.items():
            own = {path: content for path, content in files.items() if STAGE_OF[path] is name}
            link_outputs(session, stage, 1, [output_of(path, content) for path, content in own.items()])
        if layout.PREFLIGHT in files and any(STAGE_OF[path] not in BEFORE_BASE for path in files):
            session.add(_judged_as_it_says(run.id, files[layout.PREFLIGHT]))
    return FinishedRun(app, project_id, run.id, dict(files))


def approved_files() -> dict[str, bytes]:
    """One file per path that the gate reads, all about each other."""
    shard = b"PAR1 a corpus PAR1"
    files = {
        SHARD: shard,
        layout.CORPUS: b"a corpus\n" * 40,
        layout.CORPUS_MANIFEST: json.dumps(
            corpus_manifest([{"path": SHARD, "sha256": sha256_hex(shard)}])
        ).encode(),
        layout.CHAT: b'{"prompt": "hi", "reply": "hello"}\n',
        layout.EVAL: b'{"prompt": "who are you"}\n',
        SFT_WEIGHTS: bytes(range(256)) * 8,
        layout.GATE_REPORT: b'{"verdict": "approved"}',
    }
    subject = sha256_hex(files[SFT_WEIGHTS])
    base_subject = sha256_hex(b"base weights")
    reports = {
        layout.HONESTY: honesty(files),
        layout.PREFLIGHT: preflight(files),
        layout.AUDIT: audit(files, base_subject),
        layout.BASE_REPORT: base_report(base_subject),
        layout.SFT_REPORT: SftEvidence(
            subject=subject,
            base_subject=base_subject,
            split_method="group",
            num_train_rows=400,
            num_val_rows=40,
            num_nonfinite_steps=0,
        ),
        layout.FIT_REPORT: fit_report(subject, "train", 0.9),
        layout.FIT_HELDOUT_REPORT: fit_report(subject, "heldout", 0.8),
        layout.EVAL_REPORT: eval_report(subject),
    }
    return files | {path: as_json(report) for path, report in reports.items()}


def honesty(files: Mapping[str, bytes]) -> HonestyEvidence:
    return HonestyEvidence(
        **compared(files),
        exact_prompt_leaks=0,
        near_prompt_leaks=0,
        preference_prompt_leaks=0,
        corpus_prompt_hits=0,
        duplicate_eval_prompts=0,
    )


def audit(files: Mapping[str, bytes], base_subject: str) -> AuditEvidence:
    return AuditEvidence(
        **compared(files),
        subject=sha256_hex(files[SFT_WEIGHTS]),
        base_subject=base_subject,
        trained_documents=90,
        trained_rows=400,
        trained_prompt_hits=0,
        copied=score(60, 0),
    )


def compared(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What a clean report about data says first."""
    pairs = ("corpus_vs_eval", "sft_vs_eval", "corpus_vs_external", "corpus_vs_sft")
    clean = [PairEvidence(pair=pair, num_targets=60, risk="clean", num_contaminated=0) for pair in pairs]
    return {
        "chat_sha256": sha256_hex(files[layout.CHAT]),
        "eval_sha256": sha256_hex(files[layout.EVAL]),
        "corpus_sha256": sha256_hex(files[layout.CORPUS_MANIFEST]),
        "num_eval": 60,
        "contamination_matrix": MatrixEvidence(pairs=clean),
    }


def preflight(files: Mapping[str, bytes]) -> PreflightRecord:
    digests = {path: sha256_hex(content) for path, content in files.items()}
    check = PreflightCheck(
        id="documents",
        status=CheckStatus.PASS,
        measured=90.0,
        warn="< 20",
        block="< 2",
        profile="all",
        message="90 documents",
        fix="",
    )
    return PreflightRecord(
        status=PreflightStatus.READY,
        summary="every check passes",
        budget={},
        checks=(check,),
        facts=PreflightFacts.model_validate(sound_facts(digests)),
    )


def base_report(base_subject: str) -> BaseEvidence:
    return BaseEvidence(
        subject=base_subject,
        val_bpb=1.5,
        unigram_bpb=4.5,
        split_mode="document",
        val_tokens=20_000,
        num_nonfinite_steps=0,
        canary_count=8,
        canary_hits=0,
        num_parameters=100_000,
        tokens_seen=1_000_000,
        exposure_bits=1.4,
        control_exposure_bits=1.4,
        extractable=score(200, 1),
        extractable_heldout=score(200, 1),
    )


def fit_report(subject: str, rows: Literal["train", "heldout"], rate: float) -> FitEvidence:
    return FitEvidence(rows=rows, subject=subject, overall=score(100, round(100 * rate)), groups={})


def eval_report(subject: str) -> EvalEvidence:
    return EvalEvidence(
        subject=subject,
        overall=score(60, 50),
        clean=score(58, 48),
        non_choice=score(40, 34),
        groups={"identity": score(20, 18), "refusal": score(20, 18), "choice": score(20, 14)},
        choice=score(20, 14),
        choice_random_baseline=0.25,
        choice_accuracy_adjusted=0.6,
        prompt_echo=score(60, 0),
        unsafe_refusal=score(20, 18),
        benign_answered=score(40, 38),
        unsupported_claims=score(60, 0),
    )


def score(num_examples: int, num_passed: int) -> Score:
    low, high = wilson_interval(num_passed, num_examples)
    rate = num_passed / num_examples
    return Score(num_examples=num_examples, num_passed=num_passed, pass_rate=rate, low=low, high=high)


def as_json(report: BaseModel) -> bytes:
    return json.dumps(report.model_dump(mode="json")).encode()


def edited(content: bytes, **changes: Any) -> bytes:
    """A JSON report with other values at its top level."""
    return json.dumps(json.loads(content) | changes).encode()


def output_of(path: str, content: bytes) -> OutputFile:
    return OutputFile(
        path=path, sha256=sha256_hex(content), size_bytes=len(content), kind=layout.kind_of(path)
    )


def store_bytes(store: LocalStore, content: bytes) -> str:
    digest = sha256_hex(content)
    with store.begin() as upload:
        upload.write(content)
        upload.seal(digest)
        upload.publish(digest)
    return digest


def _judged_as_it_says(run_id: str, content: bytes) -> PreflightReportRow:
    """The row of a server that found in the facts what the stage found in them."""
    try:
        report = json.loads(content)
    except (ValueError, RecursionError):
        report = None
    said = (
        report
        if isinstance(report, dict) and "checks" in report
        else {"status": "blocked", "summary": "no facts"}
    )
    return PreflightReportRow(
        run_id=run_id,
        status=said["status"],
        report={"checks": [], "budget": {}, **{key: said[key] for key in said if key != "facts"}},
        sha256=sha256_hex(content),
        advice_status=said["status"],
        decided_at=datetime.now(UTC),
    )


def _rows(project_id: str, profile: str) -> tuple[Run, dict[StageName, Stage]]:
    now = datetime.now(UTC)
    run = Run(
        id=new_id("run"),
        project_id=project_id,
        name="fixture",
        spec={},
        scale="custom",
        gate_profile=profile,
        state=RunState.RUNNING.value,
        desired_state=DesiredState.RUNNING.value,
        metrics={},
        event_seq=0,
        created_at=now,
    )
    stages = {
        name: Stage(
            id=new_id("stage"),
            run_id=run.id,
            name=name.value,
            position=position,
            config={},
            needs=[],
            state=StageState.SUCCEEDED.value,
            desired_state=DesiredState.RUNNING.value,
            epoch=1,
            num_attempts=1,
            max_attempts=3,
            checkpoint_now=False,
            metrics={},
        )
        for position, name in enumerate(StageName)
    }
    return run, stages
