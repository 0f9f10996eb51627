"""Walks a folder that is a source: what is read of it and what is left out, the same before an upload and in a run.

Hidden files and folders are passed over. A link that leads out of the folder, or in a circle, is listed, never followed.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from picochat_contract.data_configs import CORPUS_SUFFIXES, split_suffix
from picochat_contract.errors import Code, ContractError
from picochat_contract.globs import matches

EXCLUDED = "recipe_excluded"
UNSUPPORTED = "unsupported_extension"
MISSING = "missing_source"
LINK_OUTSIDE = "link_outside_folder"
LINK_TO_FOLDER = "link_to_folder"


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file below a folder, or a whole folder that is left out (its name then ends with `/`)."""

    path: Path
    name: str
    """POSIX path relative to the folder that was walked, as `shown_name` writes it."""
    reason: str | None
    """None if it is read, else why not: one of the names above."""


def walk(folder: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[FoundFile]:
    """Every file below `folder` that is not hidden, ordered by the parts of its path."""
    yield from _walk(folder, "", folder.resolve(), include, exclude)


def is_read(name: str) -> bool:
    """True for the names of files that a corpus can be read from."""
    return split_suffix(name)[0] in CORPUS_SUFFIXES


def shown_name(name: str) -> str:
    """A file name as reports and messages can hold it: bytes that are not UTF-8 are written as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_excluded(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (bool(include) and not matches(name, include)) or matches(name, exclude)


def _walk(
    folder: Path, prefix: str, root: Path, include: Sequence[str], exclude: Sequence[str]
) -> Iterator[FoundFile]:
    for entry in _entries(folder):
        path, name = folder / entry.name, f"{prefix}{shown_name(entry.name)}"
        if _is_folder(entry):
            if matches(name, exclude):
                yield FoundFile(path=path, name=f"{name}/", reason=EXCLUDED)
            elif entry.is_symlink():
                yield FoundFile(path=path, name=f"{name}/", reason=LINK_TO_FOLDER)
            else:
                yield from _walk(path, f"{name}/", root, include, exclude)
        elif entry.is_symlink() or stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            yield FoundFile(path=path, name=name, reason=_reason(path, name, root, include, exclude))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"cannot list the folder {str(folder)!r}: {error.strerror}; check its permissions or exclude it",
            param=str(folder),
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """False also for a link that leads in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _reason(path: Path, name: str, root: Path, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    if is_excluded(name, include, exclude):
        return EXCLUDED
    if path.is_symlink():
        target = Path(os.path.realpath(path))  # resolve() raises for a circle
        if not target.is_relative_to(root):
            return LINK_OUTSIDE
        if not target.is_file():
            return MISSING
    return None if is_read(name) else UNSUPPORTED
