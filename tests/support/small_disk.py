"""A real file system of a few megabytes, which fills up as a disk does: a tmpfs that only one process has mounted.

The process holds a mount namespace of its own, so that nothing is left on the machine, however the test ends; others reach
the files by its `/proc/PID/root`, which is not to be resolved. Needs root, or leave to make user namespaces.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
"""What a tmpfs gives out at a time."""
_MOUNT = 'mount -t tmpfs -o "size=$1" picochat-test "$2" && echo mounted && exec cat'


@contextmanager
def small_disk(size_bytes: int, mount_point: Path) -> Iterator[Path]:
    """The root of an empty file system with room for `size_bytes`; skips the test where none may be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("no file system can be mounted here: there is no program unshare (util-linux)")
    mount_point.mkdir(parents=True)
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--mount", "--propagation", "private", *as_root]
    holder = subprocess.Popen(
        [*command, "sh", "-c", _MOUNT, "sh", str(size_bytes), str(mount_point)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None
    with holder:  # which waits for `cat`, and that for the end of its input
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no file system can be mounted here: {holder.stderr.read().strip()}")
        yield Path(f"/proc/{holder.pid}/root{mount_point}")


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def fill(disk: Path, free_pages: int) -> Path:
    """Leave no more than `free_pages` pages of the disk; the file that takes all others, to be removed again."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free_bytes(disk) - free_pages * PAGE_BYTES)
    assert free_bytes(disk) == free_pages * PAGE_BYTES
    return ballast
