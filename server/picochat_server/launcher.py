"""Become a program that dies with its parent: `python launcher.py PARENT_PID -- COMMAND...`.

The kernel kills this process (PR_SET_PDEATHSIG, kept across exec) when the thread that started it ends: kill -9 of
`picochat up`, or closing its terminal, leaves no worker that holds the work folder and asks a dead address. The
worker ties its stage to itself in the same way (its own launcher: the two packages share no import). A launcher
instead of subprocess's preexec_fn, which is unsafe in a process with threads. Standard library only, run with -I -S.
Where the system has no prctl (macOS) the command just starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
COMMAND_NOT_FOUND = 127


def die_with_parent(parent_pid: int) -> None:
    """Ask for SIGKILL at the parent's death; leave at once if that has happened already."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # died between our fork and the prctl
        os._exit(1)


def main() -> None:
    parent_pid, _separator, *command = sys.argv[1:]
    die_with_parent(int(parent_pid))
    try:
        os.execvp(command[0], command)  # noqa: S606 - children.py built this list
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]!r}: {error.strerror}\n")
        sys.exit(COMMAND_NOT_FOUND)


if __name__ == "__main__":
    main()
