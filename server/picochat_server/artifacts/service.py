"""What a project may read, and the outputs of its runs. Uploads are in `uploads.py`.

Nothing here tells a project whether another one has stored some bytes: unreadable and absent look the same.
"""

from collections.abc import Sequence

from picochat_contract.api import ArtifactOut
from picochat_contract.errors import Code, ContractError
from picochat_contract.layout import Kind, check_artifact_path
from picochat_contract.manifest import OutputFile
from picochat_contract.stages import StageName
from sqlalchemy.orm import Session

from picochat_server.artifacts import repository
from picochat_server.artifacts.store import LocalStore, check_digest
from picochat_server.models import Stage
from picochat_server.problems import ApiProblem


def readable(session: Session, project_id: str, digest: str) -> bool:
    """True if the project uploaded these bytes or one of its runs wrote them."""
    return digest in repository.readable_sizes(session, project_id, [digest])


def size_of(session: Session, store: LocalStore, project_id: str, digest: str) -> int:
    """Size of readable bytes; 404 where they are unknown to the project or gone from the store."""
    size = repository.readable_sizes(session, project_id, [digest]).get(digest)
    if size is None or not store.has(digest):
        raise ApiProblem(404, Code.NOT_FOUND, f"no artifact {digest} in this project", param="sha256")
    return size


def missing(session: Session, store: LocalStore, project_id: str, digests: Sequence[str]) -> list[str]:
    """Those of `digests` that this project has to upload, in the order asked, each once."""
    wanted = list(dict.fromkeys(check_digest(digest) for digest in digests))
    known = repository.readable_sizes(session, project_id, wanted)
    return [digest for digest in wanted if digest not in known or not store.has(digest)]


def artifacts_of_run(session: Session, project_id: str, run_id: str) -> list[ArtifactOut]:
    """The run's files by path; where two stages wrote one path, the later stage's."""
    if not repository.has_run(session, project_id, run_id):
        raise ApiProblem(404, Code.NOT_FOUND, f"no run {run_id[:80]!r} in this project", param="run")
    by_path = {
        row.path: ArtifactOut(
            path=row.path,
            sha256=row.digest,
            size_bytes=row.size_bytes,
            kind=Kind(row.kind),
            stage=StageName(stage),
            created_at=row.created_at,
        )
        for row, stage in repository.outputs_of_run(session, project_id, run_id)
    }
    return list(by_path.values())


def artifact_at(session: Session, project_id: str, run_id: str, path: str) -> tuple[str, int]:
    """Digest and size of the run's file at `path`; 400 `bad_artifact_path`, 404 where there is none."""
    try:
        check_artifact_path(path)
    except ContractError as error:
        raise ApiProblem(400, error.code, error.message, param=error.param) from error
    known = repository.has_run(session, project_id, run_id)
    rows = repository.outputs_of_run(session, project_id, run_id, path=path) if known else []
    if not rows:
        raise ApiProblem(
            404, Code.NOT_FOUND, f"no artifact {path!r} in run {run_id[:80]!r} of this project", param="path"
        )
    last, _ = rows[-1]
    return last.digest, last.size_bytes


def link_outputs(session: Session, stage: Stage, epoch: int, outputs: Sequence[OutputFile]) -> None:
    """Record a manifest's outputs as the files of `stage`; refuse one whose bytes are not stored.

    The bytes must be readable by the run's own project: naming a digest does not open another project's file.
    """
    project_id = repository.project_of_run(session, stage.run_id)
    sizes = repository.readable_sizes(session, project_id, [output.sha256 for output in outputs])
    seen: set[str] = set()
    for output in outputs:
        _check_output(output, sizes.get(output.sha256), seen)
        seen.add(output.path)
    repository.replace_outputs(session, stage.id, epoch, outputs)


def _check_output(output: OutputFile, stored_size: int | None, seen: set[str]) -> None:
    check_artifact_path(output.path)
    if output.path in seen:
        raise ApiProblem(
            422, Code.INVALID_REQUEST, f"output {output.path!r} is listed twice", param="outputs"
        )
    if stored_size is None:
        raise ApiProblem(
            422,
            Code.NOT_FOUND,
            f"output {output.path!r}: no bytes with sha256 {output.sha256} are stored; upload them first",
            param="outputs",
        )
    if stored_size != output.size_bytes:
        raise ApiProblem(
            422,
            Code.DIGEST_MISMATCH,
            f"output {output.path!r}: the manifest says {output.size_bytes} bytes, {stored_size} are stored",
            param="outputs",
        )
