"""Become a stage process that dies with its parent: `python launcher.py PARENT_PID -- COMMAND...`.

The kernel kills this process (PR_SET_PDEATHSIG, kept across exec) when the thread that started it ends, so
kill -9 of a worker, or of torchrun, leaves no trainer on the GPU. A launcher instead of subprocess's
preexec_fn, which is unsafe in a process with threads. Standard library only: it runs with -I -S, in 15 ms.
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
        os.execvp(command[0], command)  # noqa: S606 - the worker built this list
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]!r}: {error.strerror}\n")
        sys.exit(COMMAND_NOT_FOUND)


if __name__ == "__main__":
    main()
