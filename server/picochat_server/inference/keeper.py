"""`python -m picochat_server.inference.keeper -- COMMAND...`: runs a model process that never outlives the server.

The server keeps the other end of this process's standard input. When that closes, also because the server was
killed with -9, the whole process group ends. The first line of standard input is the model process's API key:
it reaches the child as PICOCHAT_MODEL_KEY, and no other PICOCHAT_* variable of the server does.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from types import FrameType

KEY_VARIABLE = "PICOCHAT_MODEL_KEY"
POLL_SECONDS = 0.25
TERM_SECONDS = 5.0
PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    command = argv[1:] if argv[:1] == ["--"] else argv
    if os.getpgrp() != os.getpid():
        sys.stderr.write("keeper: must be started as the leader of its own process group\n")
        return 2
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PICOCHAT_")}
    environment[KEY_VARIABLE] = _first_line()
    # The group gets SIGTERM below; this process has to outlast it to see the child end.
    signal.signal(signal.SIGTERM, _stay)
    # One thread only, so that preexec_fn is safe here; it would not be in the server.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, preexec_fn=_die_with_keeper)
    while child.poll() is None:
        if not _server_lives():
            return _end_group(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _first_line() -> str:
    """Read byte by byte: a buffered read would hide the end of the stream from select()."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def _server_lives() -> bool:
    ready, _, _ = select.select([0], [], [], POLL_SECONDS)
    return not ready or os.read(0, 1024) != b""


def _end_group(child: subprocess.Popen[bytes]) -> int:
    os.killpg(os.getpgrp(), signal.SIGTERM)
    try:
        child.wait(TERM_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return 0


def _stay(number: int, frame: FrameType | None) -> None:
    pass


def _die_with_keeper() -> None:
    """Ask the kernel to kill the child with this process (Linux; elsewhere only the pipe guards it)."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
