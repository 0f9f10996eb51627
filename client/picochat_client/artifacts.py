"""Artifacts: what a run wrote, and files that a run shall read."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from picochat_contract.api import ArtifactOut, MissingIn, MissingOut, Page
from picochat_contract.errors import Code
from picochat_contract.layout import check_artifact_path

from picochat_client._errors import NotFound
from picochat_client._http import Http
from picochat_client._transfer import Progress, download, file_sha256, upload
from picochat_client.runs import run_path

ASK_AT_ONCE = 10_000  # MissingIn takes no more digests


class Artifacts:
    def __init__(self, http: Http) -> None:
        self._http = http

    def list(self, run: str) -> Iterator[ArtifactOut]:
        return self._http.pages(f"{run_path(run)}/artifacts", Page[ArtifactOut])

    def find(self, run: str, path: str) -> ArtifactOut:
        """The artifact at `path`; NotFound names the nearest path that there is."""
        known = {artifact.path: artifact for artifact in self.list(run)}
        if path in known:
            return known[path]
        close = difflib.get_close_matches(path, known, n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"`picochat-client artifacts {run}` lists what it has"
        )
        raise NotFound(404, Code.NOT_FOUND, f"run {run} has no artifact {path!r}; {hint}", param="path")

    def below(self, run: str, folder: str) -> Sequence[ArtifactOut]:
        """The artifacts whose path starts with `folder` ('' for all of the run); NotFound if there is none."""
        prefix = folder if not folder or folder.endswith("/") else f"{folder}/"
        found = [artifact for artifact in self.list(run) if artifact.path.startswith(prefix)]
        if not found:
            where = f"below {prefix!r}" if prefix else "yet"
            raise NotFound(404, Code.NOT_FOUND, f"run {run} has no artifacts {where}", param="path")
        return found

    def download(
        self, run: str, artifact: ArtifactOut, target: Path, progress: Progress | None = None
    ) -> Path:
        """Fetch into the file `target`, unless it is there with the right digest already."""
        path = check_artifact_path(artifact.path)
        if not (target.is_file() and file_sha256(target) == artifact.sha256):
            route = f"{run_path(run)}/artifacts/{path}"
            download(self._http, route, target, artifact.sha256, progress)
        return target

    def download_into(
        self, run: str, artifact: ArtifactOut, folder: Path, progress: Progress | None = None
    ) -> Path:
        """Fetch into `folder` under the artifact's own path, which is checked: it cannot lead out of it."""
        return self.download(run, artifact, folder / check_artifact_path(artifact.path), progress)

    def read(self, run: str, path: str) -> bytes:
        """A small artifact as bytes."""
        return self._http.request("GET", f"{run_path(run)}/artifacts/{check_artifact_path(path)}").content

    def upload(self, path: Path, progress: Progress | None = None) -> str:
        """Store a file and return its sha256; nothing is sent if the server has it."""
        return self.upload_all({path: file_sha256(path)}, progress)[path]

    def upload_all(self, files: Mapping[Path, str], progress: Progress | None = None) -> Mapping[Path, str]:
        """Store files, given with their sha256; only what the server lacks is sent. `progress` is over all of it."""
        missing = self.missing(sorted(set(files.values())))
        wanted = {sha256: path for path, sha256 in files.items() if sha256 in missing}
        sizes = {sha256: path.stat().st_size for sha256, path in wanted.items()}
        done, total = 0, sum(sizes.values())
        for sha256, path in wanted.items():
            upload(self._http, path, sha256, _of_all(progress, done, total))
            done += sizes[sha256]
        return files

    def missing(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that the server does not hold."""
        found: set[str] = set()
        for start in range(0, len(digests), ASK_AT_ONCE):
            body = MissingIn(digests=list(digests[start : start + ASK_AT_ONCE])).model_dump()
            answer = self._http.request("POST", "/artifacts/missing", json=body, repeatable=True)
            found.update(self._http.parse(answer, MissingOut).missing)
        return found


def _of_all(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of one file as that of all files together."""
    if progress is None:
        return None
    return lambda done, _size: progress(before + done, total)
