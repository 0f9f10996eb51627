"""Files that this host uploaded or downloaded before, by sha256, so that the next stage need not fetch them again.

Hard links in the work folder, so keeping a file costs no copy. Bytes are hashed each time before they are used: a
stage that wrote into one of its inputs spoils nobody else's. The least recently used go first.
"""

import logging
import os
import shutil
from collections import OrderedDict
from pathlib import Path

from picochat_worker.control_plane import file_sha256

CACHE = "cache"
logger = logging.getLogger(__name__)


class DigestCache:
    """One folder of at most `max_bytes` and a tenth of its disk; 0 keeps nothing. Of one attempt at a time."""

    def __init__(self, work_dir: Path, max_bytes: int) -> None:
        self._folder = work_dir / CACHE
        self._folder.mkdir(parents=True, exist_ok=True)
        self._max_bytes = min(max_bytes, shutil.disk_usage(self._folder).total // 10)
        found = [(path.stat(), path) for path in self._folder.iterdir()]
        found.sort(key=lambda entry: entry[0].st_mtime_ns)
        self._sizes = OrderedDict((path.name, status.st_size) for status, path in found)
        self._shrink()

    def take(self, digest: str, target: Path) -> bool:
        """Put the bytes of `digest` at `target`; False where they are not here or are not what they were."""
        if digest not in self._sizes:
            return False
        kept = self._folder / digest
        try:
            target.hardlink_to(kept)
        except OSError:
            return False  # fetched instead
        if file_sha256(target) != digest:
            logger.warning("cached bytes of %s changed; they are fetched again", digest)
            target.unlink()
            self._drop(digest)
            return False
        os.utime(kept)
        self._sizes.move_to_end(digest)
        return True

    def keep(self, digest: str, file: Path) -> None:
        """Remember `file`, whose sha256 is `digest`, for a later stage."""
        size = file.stat().st_size
        if digest in self._sizes or size > self._max_bytes:
            return
        try:
            (self._folder / digest).hardlink_to(file)
        except OSError as error:
            logger.info("not kept for later: %s", error)
            return
        self._sizes[digest] = size
        self._shrink()

    def _shrink(self) -> None:
        total = sum(self._sizes.values())
        while total > self._max_bytes:
            digest, size = next(iter(self._sizes.items()))
            self._drop(digest)
            total -= size

    def _drop(self, digest: str) -> None:
        del self._sizes[digest]
        (self._folder / digest).unlink(missing_ok=True)
