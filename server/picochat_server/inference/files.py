"""The files of one model, and how they come from the artifact store into a folder that a process can read."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from picochat_contract import layout
from picochat_contract.canonical import digest_of


class ModelFilesError(Exception):
    """A file is gone from the store, or its bytes are not those of its digest."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """One checkpoint with its tokenizer, by content."""

    name: str
    """Canonical model id: what answers carry as `model`."""
    digests: dict[str, str]
    """File name in the folder to sha256: those of the checkpoint folder, and the tokenizer's."""

    @property
    def key(self) -> str:
        """Equal files under an equal name can share a process."""
        return digest_of({"name": self.name, "files": self.digests})

    @property
    def folder(self) -> str:
        return digest_of(self.digests)

    @property
    def weights(self) -> str:
        return self.digests[layout.WEIGHTS]


def lay_out(files: ModelFiles, folder: Path, stored: Callable[[str], Path]) -> None:
    """Fill `folder` with hard links into the store (copies across file systems); every digest is checked."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in files.digests.items():
        target = folder / name
        if target.exists() and sha256_of(target) == digest:
            continue
        _place(stored(digest), target, name)
        if sha256_of(target) != digest:
            target.unlink()
            raise ModelFilesError(
                f"{name}: the stored bytes do not have sha256 {digest[:12]}...; the artifact store is damaged, "
                "run the stage that wrote it again"
            )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(source: Path, target: Path, name: str) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except FileNotFoundError as error:
        raise ModelFilesError(f"{name} is not in the artifact store any more") from error
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
