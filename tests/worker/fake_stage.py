"""A stage process without a trainer: `fake_stage.py STAGE --config FILE --out RUN`.

`config.behaviour` in the job chooses what it does; `config.folder` is where it meets the test: it writes
`<name>.pid` files there and waits for files that the test puts there. Standard library only.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

RUN = Path(sys.argv[sys.argv.index("--out") + 1])
JOB = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
STAGE = RUN / "stages" / JOB["stage"]
CONFIG = JOB["config"]
MEETING = Path(CONFIG["folder"])
PATIENCE_SECONDS = 60
stopped = False


def event(kind: str, **data: Any) -> None:
    path = STAGE / "events.jsonl"
    seq = len(path.read_bytes().splitlines()) + 1 if path.exists() else 1
    line = {"seq": seq, "time": datetime.now(UTC).isoformat(), "type": kind, "data": data}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def described(path: str) -> dict[str, Any]:
    data = (RUN / path).read_bytes()
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def write(path: str, text: str) -> None:
    (RUN / path).parent.mkdir(parents=True, exist_ok=True)
    (RUN / path).write_text(text)


def manifest(*outputs: dict[str, Any]) -> None:
    content = {
        "stage": JOB["stage"],
        "fingerprint": "f",
        "code_version": "1",
        "created_at": datetime.now(UTC).isoformat(),
        "duration_seconds": 0.1,
        "outputs": [{"kind": "data", **output} for output in outputs],
    }
    (STAGE / "manifest.tmp").write_text(json.dumps(content))
    (STAGE / "manifest.tmp").replace(STAGE / "manifest.json")


def checkpoint(step: int) -> None:
    """A new folder swapped in by rename, then announced: files are never changed in place."""
    name = f"{JOB['stage']}/resume_checkpoint"
    new, old = RUN / f"{name}.new", RUN / name
    write(f"{name}.new/model.safetensors", f"weights {step} " * 100)
    write(f"{name}.new/training_state.json", json.dumps({"step": step}))
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)
    files = [described(f"{name}/{file}") for file in ("model.safetensors", "training_state.json")]
    event("checkpoint", directory=name, step=step, files=files)


def error(code: str, message: str) -> None:
    (STAGE / "error.json").write_text(json.dumps({"code": code, "message": message}))


def say_pid(name: str) -> None:
    (MEETING / f"{name}.tmp").write_text(str(os.getpid()))
    (MEETING / f"{name}.tmp").rename(MEETING / f"{name}.pid")


def wait_until_told(name: str = "go") -> bool:
    """True when the test says so, False at SIGTERM."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (MEETING / name).exists():
        if stopped:
            return False
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        time.sleep(0.02)
    return True


def listen() -> None:
    def stop(*_: object) -> None:
        global stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)


def succeed() -> None:
    print("hello from the stage")
    event("progress", step=1, total_steps=2, unit="step")
    event("metric", step=2, values={"loss": 1.5})
    write("corpus.txt", CONFIG.get("text", "some text"))
    manifest(described("corpus.txt"))


def poison() -> None:
    event("log", level="info", message="first")
    event("log", level="info", message="second", poison=True)
    event("log", level="info", message="third")
    write("corpus.txt", "text")
    manifest(described("corpus.txt"))


def fail() -> NoReturn:
    print("the last line of the log")
    if "code" in CONFIG:
        error(CONFIG["code"], CONFIG["message"])
    sys.exit(CONFIG["exit_code"])


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train() -> None:
    """Until told to go on; SIGTERM means a checkpoint and 75."""
    listen()
    say_pid("stage")
    event("progress", step=3, total_steps=10, unit="step")
    if not wait_until_told():
        checkpoint(4)
        sys.exit(75)
    succeed()


def train_with_family() -> None:
    """As `train`, with a grandchild in a session of its own that ignores SIGTERM."""
    family = "import pathlib, signal, sys, time; signal.signal(15, signal.SIG_IGN); "
    family += "pathlib.Path(sys.argv[1]).write_text(str(__import__('os').getpid())); time.sleep(600)"
    command = [sys.executable, "-c", family, str(MEETING / "grandchild.pid")]
    subprocess.Popen(["/bin/sh", "-c", '"$@" & wait', "sh", *command], start_new_session=True)
    train()


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say_pid("stage")
    time.sleep(600)


def chatter() -> None:
    """Events, 20 a second, until told to go on."""
    listen()
    say_pid("stage")
    step = 0
    while not (MEETING / "go").exists():
        step += 1
        event("metric", step=step, values={"loss": 1 / step})
        time.sleep(0.05)
        if stopped:
            checkpoint(step)
            sys.exit(75)
    (MEETING / "steps").write_text(str(step))
    succeed()


def checkpoint_often() -> None:
    listen()
    for step in (10, 20, 30):
        checkpoint(step)
        time.sleep(0.3)
    say_pid("stage")
    wait_until_told()
    succeed()


def checkpoint_torn() -> None:
    write("base/resume_checkpoint/a", "one")
    digest = {**described("base/resume_checkpoint/a"), "sha256": "0" * 64}
    event("checkpoint", directory="base/resume_checkpoint", step=1, files=[digest])
    time.sleep(0.5)
    checkpoint(2)
    succeed()


def checkpoint_escape() -> None:
    outside = RUN / ".." / ".." / "secret.txt"
    outside.write_text("secret")
    file = {**described("../../secret.txt"), "path": "../../secret.txt"}
    event("checkpoint", directory="base", step=1, files=[file])
    (RUN / "link").symlink_to(outside.resolve())
    event("checkpoint", directory="base", step=2, files=[described("link")])
    succeed()


def checkpoint_when_asked() -> None:
    listen()
    say_pid("stage")
    wanted = STAGE / "checkpoint_now"
    while not wanted.exists():
        time.sleep(0.02)
    wanted.unlink()
    checkpoint(7)
    wait_until_told()
    succeed()


def tell_inputs() -> None:
    """Which files lie in the run folder, and what a process of a stage can see of its worker."""
    seen = {
        "files": {str(p.relative_to(RUN)): p.read_text() for p in sorted(RUN.rglob("*")) if p.is_file()},
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }
    (MEETING / "seen.json").write_text(json.dumps(seen))
    succeed()


def escape() -> None:
    outside = RUN / ".." / ".." / "secret.txt"
    outside.write_text("secret")
    manifest({**described("../../secret.txt"), "path": "../../secret.txt"})


def escape_by_link() -> None:
    (RUN / "corpus.txt").symlink_to("/etc/hostname")
    manifest(described("corpus.txt"))


def forget_manifest() -> None:
    write("corpus.txt", "text")


BEHAVIOURS = (
    succeed, poison, fail, kill_itself, train, train_with_family, ignore_sigterm, chatter, checkpoint_often,
    checkpoint_torn, checkpoint_escape, checkpoint_when_asked, tell_inputs, escape, escape_by_link, forget_manifest,
)  # fmt: skip

if __name__ == "__main__":
    {behaviour.__name__: behaviour for behaviour in BEHAVIOURS}[CONFIG["behaviour"]]()
