"""What would be left after a power cut: watches `os.fsync` and renames, and holds each rename against what was synced.

A file is safe once its bytes were synced, a folder once its names were. Nothing of it is simulated: the calls go through.
"""

import os
from pathlib import Path
from typing import Any

import pytest

Content = bytes | tuple[str, ...]


class Syncs:
    """What was synced, and when, since this was made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.renames: list[tuple[str, str, list[str]]] = []
        """Names of what was moved and of its new place, and what in it a power cut would have taken then."""
        self._safe: dict[tuple[int, int], Content] = {}
        self._fsync, self._calls = os.fsync, {name: getattr(os, name) for name in ("rename", "replace")}
        monkeypatch.setattr(os, "fsync", self._record_sync)
        for name in self._calls:
            monkeypatch.setattr(os, name, self._recorder(name))

    def unsafe(self, path: Path) -> list[str]:
        """Names below `path`, itself among them, that are not on the disk as they are now."""
        tree = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
        return [p.name for p in tree if not self.is_safe(p)]

    def is_safe(self, path: Path) -> bool:
        """True if the disk has the bytes of this file, or the names in this folder, as they are now."""
        return self._safe.get(_identity(os.stat(path))) == _content(str(path))

    def _record_sync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self._safe[_identity(os.fstat(descriptor))] = _content(f"/proc/self/fd/{descriptor}")

    def _recorder(self, name: str) -> Any:
        def call(source: Path, target: Path, **places: Any) -> None:
            self.renames.append((Path(source).name, Path(target).name, self.unsafe(Path(source))))
            self._calls[name](source, target, **places)

        return call


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _content(path: str) -> Content:
    return tuple(sorted(os.listdir(path))) if os.path.isdir(path) else Path(path).read_bytes()
