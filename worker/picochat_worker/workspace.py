"""The folder of one attempt: work_dir/attempts/<run>/<stage>/<epoch>/, with the run folder in it.

run/          the run folder that the stage sees
snapshots/    hard links to checkpoints that wait for their upload
ranks/        how torchrun's ranks ended
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from picochat_contract.api import ArtifactOut, Claim
from picochat_contract.canonical import SHA256_HEX
from picochat_contract.errors import Code, ContractError
from picochat_contract.layout import check_artifact_path
from picochat_contract.manifest import Manifest, StageJob
from picochat_contract.stages import StageName
from pydantic import ValidationError

from picochat_worker.digest_cache import DigestCache
from picochat_worker.errors import BadManifest, WorkDirInUse

ATTEMPTS = "attempts"
LOCK = "worker.lock"
LOG_TAIL_BYTES = 2000
Fetch = Callable[[str, Path], None]
"""Brings the artifact with a digest to a path."""


@contextmanager
def held_work_dir(work_dir: Path) -> Iterator[None]:
    """Hold the work folder for this process alone; raise WorkDirInUse where another worker holds it.

    The lock belongs to the process, so it is free again however the worker ends.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkDirInUse(
                f"another worker is using {work_dir}; give this one its own --name or --work-dir"
            ) from error
        yield


def clean_workspaces(work_dir: Path) -> None:
    """Remove what earlier attempts left. Only while holding the folder, after their processes are gone."""
    shutil.rmtree(work_dir / ATTEMPTS, ignore_errors=True)


class Workspace:
    def __init__(
        self,
        work_dir: Path,
        claim: Claim,
        *,
        store_dir: Path | None = None,
        cache: DigestCache | None = None,
    ) -> None:
        place = check_artifact_path(f"{claim.run}/{claim.job.stage}/{claim.epoch}")
        self.root = work_dir / ATTEMPTS / place
        self.run = self.root / "run"
        self.snapshots = self.root / "snapshots"
        self._claim = claim
        self._store_dir = store_dir
        self._cache = cache
        self._stage = self.run / "stages" / claim.job.stage
        shutil.rmtree(self.root, ignore_errors=True)
        self._stage.mkdir(parents=True)

    @property
    def job_file(self) -> Path:
        return self._stage / "stage.json"

    @property
    def events(self) -> Path:
        return self._stage / "events.jsonl"

    @property
    def log(self) -> Path:
        return self._stage / "log.txt"

    @property
    def error(self) -> Path:
        return self._stage / "error.json"

    def lay(self, job: StageJob, fetch: Fetch) -> None:
        """Bring inputs, sources and the resume checkpoint into the run folder, and write stage.json."""
        resume = self._claim.resume.files if self._claim.resume else []
        for artifact in [*self._claim.inputs, *resume]:
            self._lay_file(artifact, fetch)
        for digest in self._claim.sources:
            self._bring(_checked_digest(digest), self.run / "sources" / digest, fetch)
        write_atomically(self.job_file, job.model_dump_json(indent=2))

    def keep(self, digest: str, file: Path) -> None:
        """Remember a file of this run folder for later stages on this host."""
        if self._cache is not None:
            self._cache.keep(digest, file)

    def request_checkpoint(self) -> None:
        (self._stage / "checkpoint_now").touch()

    def manifest(self) -> Manifest:
        """The stage's manifest with every output checked to be a file of its size inside the run folder."""
        path = self._stage / "manifest.json"
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise BadManifest(Code.INTERNAL, "the stage ended with 0 but left no manifest.json") from error
        except (OSError, ValidationError) as error:
            raise BadManifest(Code.INTERNAL, f"manifest.json cannot be used: {error}") from error
        if manifest.stage != self._claim.job.stage:
            raise BadManifest(
                Code.INTERNAL,
                f"manifest.json is of stage {manifest.stage}, expected {self._claim.job.stage}",
            )
        for output in manifest.outputs:
            file = self.output(output.path)
            size = file.stat().st_size
            if size != output.size_bytes:
                raise BadManifest(
                    Code.DIGEST_MISMATCH,
                    f"output {output.path} has {size} bytes, its manifest says {output.size_bytes}",
                )
        return manifest

    def output(self, path: str) -> Path:
        """The file at run-folder path `path`; raise BadManifest where it leads outside or is no plain file."""
        try:
            file = self.run / check_artifact_path(path)
        except ContractError as error:
            raise BadManifest(error.code, error.message) from error
        if file.is_symlink() or not file.resolve().is_relative_to(self.run.resolve()):
            raise BadManifest(
                Code.BAD_ARTIFACT_PATH, f"output {path} is a link or lies outside the run folder"
            )
        if not file.is_file():
            raise BadManifest(Code.FILE_UNREADABLE, f"output {path} is in the manifest but not in the folder")
        return file

    def log_files(self) -> list[str]:
        """Run-folder paths of the logs, which are kept as outputs."""
        return [file.relative_to(self.run).as_posix() for file in (self.log, self.events) if file.is_file()]

    def log_tail(self) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        for parent in (self.root.parent, self.root.parent.parent):
            try:
                parent.rmdir()
            except OSError:
                return  # another attempt's folder is in it

    def _lay_file(self, artifact: ArtifactOut, fetch: Fetch) -> None:
        target = self.run / check_artifact_path(artifact.path)
        self._bring(_checked_digest(artifact.sha256), target, fetch)

    def _bring(self, digest: str, target: Path, fetch: Fetch) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._store_dir is not None and _link(stored_file(self._store_dir, digest), target):
            return
        if self._cache is not None and self._cache.take(digest, target):
            return
        fetch(digest, target)
        self.keep(digest, target)


def stored_file(store_dir: Path, digest: str) -> Path:
    """Where the server's local artifact folder keeps a digest."""
    return store_dir / "objects" / digest[:2] / digest[2:4] / digest


def stage_arguments(stage: StageName, workspace: Workspace) -> list[str]:
    """The stage protocol's arguments."""
    return [stage.value, "--config", str(workspace.job_file), "--out", str(workspace.run)]


def write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _link(source: Path, target: Path) -> bool:
    """Hard-link; False where that cannot be done and the file has to be fetched."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK):
            raise
        return False
    return True


def _checked_digest(digest: str) -> str:
    if not SHA256_HEX.fullmatch(digest):
        raise ContractError(Code.BAD_DIGEST, f"expected 64 hexadecimal digits, got {digest!r}")
    return digest
