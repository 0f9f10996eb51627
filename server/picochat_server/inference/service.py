"""Which model a name stands for, whether this project may call it, and what the gate said about it.

NAME            newest version of a release
run_...         SFT checkpoint of a run
run_...:base    best base checkpoint of a run; never released, for it has no verdict
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from picochat_contract import layout
from picochat_contract.api import ArtifactOut
from picochat_contract.errors import Code
from sqlalchemy.orm import Session

from picochat_server.artifacts.service import artifacts_of_run
from picochat_server.artifacts.store import LocalStore
from picochat_server.auth.principal import Principal
from picochat_server.gates import service as gates
from picochat_server.inference import repository
from picochat_server.inference.files import ModelFiles
from picochat_server.models import GateReportRow, Release, Run
from picochat_server.problems import ApiProblem
from picochat_server.releases import repository as releases
from picochat_server.releases.service import released
from picochat_server.runs import repository as runs
from picochat_server.settings import Settings

BASE_SUFFIX = ":base"
NO_VERDICT = "none"
MAX_LISTED = 200
TOKENIZER_FILES = (layout.TOKENIZER, layout.TOKENIZER_CONFIG)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that this principal may call."""

    name: str
    """As it was asked for."""
    created_at: datetime
    """When its run was submitted."""
    files: ModelFiles
    verdict: str
    """approved, warn, blocked; `none` where no verdict applies to these weights."""
    report: GateReportRow | None
    """What the verdict rests on."""
    is_released: bool


def find(session: Session, store: LocalStore, settings: Settings, principal: Principal, name: str) -> Model:
    """The model called `name`; 404 unknown, 409 not ready, 403 not released (unless the settings allow it)."""
    run, folder = _run_of(session, principal.project_id, name)
    is_base = folder == layout.BASE_BEST
    files = _files(session, run, folder, f"{run.id}{BASE_SUFFIX}" if is_base else run.id)
    release = None if is_base else released(session, principal.project_id, name)
    report = _report(session, store, settings, run, release)
    if report is not None and report.subject != files.weights:
        report = None
    is_released = release is not None and report is not None and release.checkpoint_sha256 == files.weights
    if not is_released and not settings.allow_unreleased:
        raise _not_released(name, report)
    return Model(
        name=name,
        created_at=run.created_at,
        files=files,
        verdict=report.verdict if report else NO_VERDICT,
        report=report,
        is_released=is_released,
    )


def check_evidence(session: Session, store: LocalStore, settings: Settings, name: str, model: Model) -> None:
    """Before the model is loaded: its release must still follow from the bytes in the store, else 403."""
    if model.report is None or not model.is_released:
        return
    lapsed = gates.why_lapsed(session, store, settings, model.report)
    if lapsed is not None and not settings.allow_unreleased:
        raise ApiProblem(
            403,
            Code.MODEL_NOT_RELEASED,
            f"the release of {name!r} does not apply any more: {lapsed}",
            param="model",
        )


def list_models(session: Session, store: LocalStore, settings: Settings, principal: Principal) -> list[Model]:
    """What `find` would answer with: release names first, then run ids, newest first."""
    names = [row.name for row in repository.releases(session, principal.project_id, MAX_LISTED)]
    stored = repository.weights_of_runs(session, principal.project_id, MAX_LISTED)
    ids = [run.id if path == repository.SFT_WEIGHTS else run.id + BASE_SUFFIX for run, path, _ in stored]
    found = []
    for name in dict.fromkeys([*names, *ids]):
        try:
            found.append(find(session, store, settings, principal, name))
        except ApiProblem:
            continue  # not released, or half of it is gone
    return found


def _run_of(session: Session, project_id: str, name: str) -> tuple[Run, str]:
    """The run and the checkpoint folder that a model name stands for."""
    run_id = name.removesuffix(BASE_SUFFIX)
    run = runs.run_of_project(session, project_id, run_id)
    if run is not None:
        return run, layout.SFT_CHECKPOINT if run_id == name else layout.BASE_BEST
    release = releases.newest(session, project_id, name)
    run = runs.run_of_project(session, project_id, release.run_id) if release else None
    if run is None:
        raise ApiProblem(
            404,
            Code.MODEL_NOT_FOUND,
            f"there is no model {name[:80]!r}; GET /v1/models lists those that this key may call",
            param="model",
        )
    return run, layout.SFT_CHECKPOINT


def _files(session: Session, run: Run, folder: str, name: str) -> ModelFiles:
    artifacts = artifacts_of_run(session, run.project_id, run.id)
    digests = _below(artifacts, folder) | {
        file.path: file.sha256 for file in artifacts if file.path in TOKENIZER_FILES
    }
    missing = [needed for needed in (layout.WEIGHTS, layout.TOKENIZER) if needed not in digests]
    if missing:
        raise ApiProblem(
            409,
            Code.MODEL_NOT_READY,
            f"run {run.id} ({run.state}) has no finished {folder} yet: {', '.join(missing)} is not stored",
            param="model",
        )
    return ModelFiles(name=name, digests=digests)


def _below(artifacts: Sequence[ArtifactOut], folder: str) -> dict[str, str]:
    """Files that lie directly in `folder`, by name."""
    prefix = folder + "/"
    names = {
        file.path.removeprefix(prefix): file.sha256 for file in artifacts if file.path.startswith(prefix)
    }
    return {name: digest for name, digest in names.items() if "/" not in name}


def _report(
    session: Session, store: LocalStore, settings: Settings, run: Run, release: Release | None
) -> GateReportRow | None:
    """The verdict that applies: the release's, else the run's newest; None if it is not (any more) ours."""
    row = (
        repository.gate_report(session, release.gate_report_id) if release else gates.latest(session, run.id)
    )
    if row is None or gates.why_lapsed(session, store, settings, row, reads_bytes=False) is not None:
        return None
    return row


def _not_released(name: str, report: GateReportRow | None) -> ApiProblem:
    said = f"the gate's verdict on it is {report.verdict}" if report else "no verdict applies to it"
    return ApiProblem(
        403,
        Code.MODEL_NOT_RELEASED,
        f"model {name[:80]!r} is not released: {said}. An approved run is released with "
        "`picochat-client release NAME RUN`; a server started with PICOCHAT_ALLOW_UNRELEASED=true serves it all the same",
        param="model",
    )
