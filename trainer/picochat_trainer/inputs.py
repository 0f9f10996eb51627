"""Where run-folder names lie, and digests of input files by name: what fingerprints and checks are made of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc_data import topics

from picochat_contract.canonical import digest_of
from picochat_contract.data_configs import DatasetConfig, FileRef, FileSource, PydocSource, Source
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
    """Digests of what a dataset config names but does not hold: files by path, and this Python's manual."""
    digests: dict[str, str] = {}
    references: list[Source | FileRef | None] = [*config.sources, config.chat, config.eval]
    for reference in references:
        if isinstance(reference, PydocSource):
            digests["pydoc"] = digest_of(topics.topics)  # another Python has another text
        if not isinstance(reference, FileSource):
            continue
        root = Path(reference.path)
        if not root.exists():
            raise ContractError(
                Code.CORPUS_MISSING,
                f"there is no file or folder {reference.path!r}; give the path of a text file or of a folder",
                param="dataset.sources",
            )
        for file in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]:
            digests[f"file:{file}"] = _readable_sha256(file)
    return digests


def _readable_sha256(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as error:
        raise ContractError(Code.FILE_UNREADABLE, f"cannot read {file}: {error}", param=str(file)) from error
