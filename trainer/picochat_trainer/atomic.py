"""Files and folders that are either the old version or the new one, also after a kill at any moment.

A file is written to a temporary sibling, synced, and renamed. A folder is swapped by two renames and keeps the
one before it as `<name>.previous`; between the two renames only `.previous` is there, so readers look at both.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

PREVIOUS = ".previous"
_CHUNK = 1 << 20  # bytes read at a time while hashing
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room left."""


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{uuid4().hex}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON in the order of the keys; NaN and Infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary sibling of `folder`; on a clean exit it becomes `folder`."""
    temporary = temporary_of(folder, uuid4().hex)
    begin_folder(temporary)
    try:
        yield temporary
        put_in_place(temporary, folder)
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(folder)  # a write to an open file does not say where
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_of(folder: Path, token: str) -> Path:
    """The sibling of `folder` that is filled before it takes its place; `remove_leftovers` finds it after a kill."""
    return folder.with_name(f"{_temporary_prefix(folder)}{token}")


def begin_folder(temporary: Path) -> None:
    """Make a folder of `temporary_of` where it is not there: several processes may fill one."""
    temporary.mkdir(parents=True, exist_ok=True)


def put_in_place(temporary: Path, folder: Path) -> None:
    """Sync the folder of `temporary_of` and make it `folder`; at every moment `folder` or its `.previous` is complete."""
    sync_tree(temporary)
    previous = previous_of(folder)
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    temporary.rename(folder)
    sync_folder(folder.parent)


def previous_of(folder: Path) -> Path:
    return folder.with_name(folder.name + PREVIOUS)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary siblings of `folder` that a killed writer left behind."""
    if folder.parent.is_dir():
        for leftover in folder.parent.glob(f"{_temporary_prefix(folder)}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove `folder`, its `.previous` and its leftovers."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(previous_of(folder), ignore_errors=True)
    remove_leftovers(folder)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _temporary_prefix(folder: Path) -> str:
    return f".{folder.name}.tmp-"
