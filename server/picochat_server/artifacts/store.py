"""Content-addressed files in a local folder; an object never changes once it is in place.

    objects/ab/cd/<sha256>    complete files, mode 0444
    incoming/*.tmp, *.part    uploads under way, and cut ones that may go on

Bytes are hashed on their way in and renamed into place in the same filesystem, so a reader sees a whole file
or none and two uploads of one digest cannot hurt each other. Projects and rights are not known here.
"""

import fcntl
import hashlib
import os
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from picochat_contract.canonical import SHA256_HEX, sha256_hex
from picochat_contract.errors import Code, ContractError

LEFTOVER_SECONDS = 24 * 3600.0
CLEAN_EVERY_SECONDS = 3600.0
LOCK_PATIENCE_SECONDS = 3.0  # a repeated part waits this long for the cut request that it repeats
LOCK_POLL_SECONDS = 0.05
OBJECT_MODE = 0o444
AHEAD_SECONDS = 60.0


class OffsetError(ContractError):
    """A part does not start where the stored bytes end."""

    def __init__(self, message: str, *, expected: int) -> None:
        super().__init__(Code.UPLOAD_OFFSET, message, param="Upload-Offset")
        self.expected = expected


def check_digest(digest: str) -> str:
    """Return `digest` if it is 64 lower-case hexadecimal digits; raise `bad_digest` otherwise."""
    if not SHA256_HEX.fullmatch(digest):
        raise ContractError(
            Code.BAD_DIGEST,
            f"{digest[:80]!r} is not a sha256 digest: expected 64 lower-case hexadecimal digits",
            param="sha256",
        )
    return digest


class Upload:
    """One file on its way in. `seal` does the slow work, `publish` is a rename; `close` drops what is left."""

    def __init__(self, store: "LocalStore", file: BinaryIO, path: Path, *, is_partial: bool) -> None:
        self._store = store
        self._file = file
        self._path = path
        self._is_partial = is_partial
        self._keeps_file = is_partial
        # A partial's first bytes came in an earlier request: it is hashed as a whole when it is sealed.
        self._hash = None if is_partial else hashlib.sha256()
        self.size = os.fstat(file.fileno()).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_offset(self, offset: int) -> None:
        if offset != self.size:
            raise OffsetError(
                f"the next part has to start at byte {self.size}, this one starts at {offset}",
                expected=self.size,
            )

    def write(self, data: bytes) -> None:
        self._file.write(data)
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)

    def rewind(self, size: int) -> None:
        """Forget what was written after `size` bytes; only a partial can."""
        assert self._is_partial, "the running hash of a whole upload cannot go back"
        self._file.flush()
        os.ftruncate(self._file.fileno(), size)
        self.size = size

    def seal(self, digest: str) -> None:
        """Make the bytes durable and check them; a wrong hash removes them and raises `digest_mismatch`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        found = self._hash.hexdigest() if self._hash is not None else self._hash_from_disk()
        if found != digest:
            self._keeps_file = False
            raise ContractError(
                Code.DIGEST_MISMATCH,
                f"the {self.size} bytes received have sha256 {found}, the address says {digest}; nothing was "
                "stored, send the file again",
                param="sha256",
            )

    def publish(self, digest: str) -> None:
        """Put sealed bytes in place. An object that is there already is replaced by the same, checked bytes."""
        target = self._store.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.fchmod(self._file.fileno(), OBJECT_MODE)  # not earlier: a partial must stay writable
        self._path.replace(target)
        _sync_folder(target.parent)
        self._keeps_file = True

    def keep(self, owner: str, digest: str) -> None:
        """Leave the bytes of a cut upload as the partial of `owner`, unless a longer one is there."""
        self._file.flush()
        try:
            with self._store.resume(owner, digest) as old:
                if old.size < self.size:
                    self._path.replace(self._store.partial_path(owner, digest))
                    self._keeps_file = True
        except OffsetError:
            return  # somebody is sending parts right now: theirs go on

    def close(self) -> None:
        if not self._keeps_file:
            self._path.unlink(missing_ok=True)
        self._file.close()  # also gives the lock of a partial back

    def _hash_from_disk(self) -> str:
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class _HashedAhead(NamedTuple):
    sha256: str
    mark: tuple[int, ...]
    at: float
    """time.monotonic() when the hash was complete."""

    def is_about(self, file: BinaryIO) -> bool:
        return _mark(file) == self.mark and time.monotonic() - self.at < AHEAD_SECONDS


class LocalStore:
    """A folder of files that are named by their sha256."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        (root / "objects").mkdir(exist_ok=True)
        self._cleaned_at = -CLEAN_EVERY_SECONDS
        self._ahead: dict[str, _HashedAhead] = {}

    def path(self, digest: str) -> Path:
        check_digest(digest)
        return self.root / "objects" / digest[:2] / digest[2:4] / digest

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    def hash_now(self, digest: str) -> str | None:
        """sha256 of the bytes that lie there now; None where nothing does."""
        ahead = self._ahead.pop(digest, None)
        try:
            with self.path(digest).open("rb") as file:
                if ahead is not None and ahead.is_about(file):
                    return ahead.sha256
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def hash_ahead(self, digest: str) -> None:
        """Hash now, for one `hash_now` soon: before a transaction that must not wait for a large file.

        It counts only while the file's identity, size and times stay as they were and for a minute.
        """
        try:
            with self.path(digest).open("rb") as file:
                mark = _mark(file)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return
        self._ahead[digest] = _HashedAhead(sha256, mark, time.monotonic())

    def begin(self) -> Upload:
        """Start a whole upload."""
        self._clean_sometimes()
        number, name = tempfile.mkstemp(suffix=".tmp", dir=self._incoming)
        return Upload(self, os.fdopen(number, "wb"), Path(name), is_partial=False)

    def resume(self, owner: str, digest: str) -> Upload:
        """Open (or start) the partial of `owner`, alone; raise OffsetError where another request holds it."""
        self._clean_sometimes()
        path = self.partial_path(owner, digest)
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while True:
            file = path.open("ab")
            is_locked = _lock(file)
            if is_locked and _is_same_file(file, path):
                return Upload(self, file, path, is_partial=True)
            size = os.fstat(file.fileno()).st_size
            file.close()  # held by another request, or published or replaced between open and lock
            if time.monotonic() > deadline:
                raise OffsetError(
                    f"another request is sending a part of {digest} now, {size} bytes so far; wait for it",
                    expected=size,
                )
            if not is_locked:
                time.sleep(LOCK_POLL_SECONDS)

    def partial_size(self, owner: str, digest: str) -> int:
        """Bytes of `owner`'s cut upload; 0 where there is none."""
        try:
            return self.partial_path(owner, digest).stat().st_size
        except FileNotFoundError:
            return 0

    def partial_path(self, owner: str, digest: str) -> Path:
        return self._incoming / f"{sha256_hex(f'{owner}/{check_digest(digest)}')}.part"

    def clean(self, max_age_seconds: float = LEFTOVER_SECONDS) -> int:
        """Remove uploads that nobody has written to for `max_age_seconds`; return how many."""
        oldest = time.time() - max_age_seconds
        removed = 0
        for path in self._incoming.iterdir():
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue  # its upload ended meanwhile
        return removed

    def _clean_sometimes(self) -> None:
        now = time.monotonic()
        if now - self._cleaned_at >= CLEAN_EVERY_SECONDS:
            self._cleaned_at = now
            self.clean()


def _mark(file: BinaryIO) -> tuple[int, ...]:
    """What changes with a file's bytes, as far as the file system tells."""
    found = os.fstat(file.fileno())
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
