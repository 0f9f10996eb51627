"""One torchrun rank: run a command and write down how it ended: `python rank.py DIR -- COMMAND...`.

torchrun answers 1 whatever its ranks answered, so exit 2 (bad input), 75 (interrupted) and a kill by the
out-of-memory killer would all look like a crash. DIR/<rank>.json keeps the truth. Standard library only.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

LAUNCHER = Path(__file__).with_name("launcher.py")


def main() -> None:
    folder, _separator, *command = sys.argv[1:]
    # torchrun signals our whole group, so the command gets SIGTERM itself; we only have to outlive it. A
    # handler that does nothing, not SIG_IGN: exec resets handlers, but the command would inherit SIG_IGN.
    signal.signal(signal.SIGTERM, _outlive)
    signal.signal(signal.SIGINT, _outlive)
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), "--"]
    code = subprocess.Popen([*launcher, *command]).wait()
    record = Path(folder) / f"{os.environ.get('RANK', '0')}.json"
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps({"exit_code": code, "time_ns": time.time_ns()}))
    temporary.replace(record)
    sys.exit(code if code >= 0 else 128 - code)


def _outlive(_number: int, _frame: FrameType | None) -> None:
    pass


if __name__ == "__main__":
    main()
