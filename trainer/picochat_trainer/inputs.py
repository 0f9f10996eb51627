"""Where run-folder names lie, and digests of input files by name: what fingerprints and checks are made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc_data import topics

from picochat_client.folders import walk
from picochat_contract.canonical import digest_of
from picochat_contract.data_configs import DatasetConfig, FileSource, PydocSource
from picochat_contract.errors import Code, ContractError
from picochat_contract.stages import STAGES, StageName

from picochat_trainer.atomic import file_sha256


def locate(name: str, run_dir: Path, moved: Mapping[str, str]) -> Path:
    """The path of run-folder name `name`; `moved` may give it, or a folder above it, another place."""
    parts = name.strip("/").split("/")
    for length in range(len(parts), 0, -1):
        place = moved.get("/".join(parts[:length]))
        if place is not None:
            return Path(place).joinpath(*parts[length:])
    return run_dir.joinpath(*parts)


def input_digests(path_of: Callable[[str], Path], stage: StageName) -> dict[str, str]:
    """Run-folder name to sha256 of each input file of `stage` that exists; the stage says what is missing."""
    digests: dict[str, str] = {}
    for name in STAGES[stage].inputs:
        path = path_of(name)
        if name.endswith("/"):
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                digests[f"{name}{file.relative_to(path).as_posix()}"] = file_sha256(file)
        elif path.is_file():
            digests[name] = file_sha256(path)
    return digests


def source_digests(config: DatasetConfig) -> dict[str, str]:
    """Digests of what a dataset config names but does not hold: files by path, and this Python's manual.

    Of a folder they cover the files that are read and, under `listing:`, the names of those that are left out.
    """
    digests: dict[str, str] = {}
    for reference in config.references:
        if isinstance(reference, PydocSource):
            digests["pydoc"] = digest_of(topics.topics)  # another Python has another text
        if isinstance(reference, FileSource):
            digests |= _file_digests(reference)
    return digests


def _file_digests(source: FileSource) -> dict[str, str]:
    root = Path(source.path)
    if not root.exists():
        if source.optional:
            return {f"listing:{root}": digest_of(None)}
        raise ContractError(
            Code.CORPUS_MISSING,
            f"there is no file or folder {source.path!r}; give the path of a text file or of a folder",
            param="dataset.sources",
        )
    if not root.is_dir():
        return {f"file:{root}": _readable_sha256(root)}
    found = list(walk(root, source.include, source.exclude))
    left_out = [(file.name, file.reason) for file in found if file.reason is not None]
    return {
        f"listing:{root}": digest_of(left_out),
        **{f"file:{file.path}": _readable_sha256(file.path) for file in found if file.reason is None},
    }


def _readable_sha256(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as error:
        raise ContractError(Code.FILE_UNREADABLE, f"cannot read {file}: {error}", param=str(file)) from error
