import os
import subprocess
import sys
from pathlib import Path

import pytest
from picochat_worker.process_group import LAUNCHER, ProcessGroup
from picochat_worker.process_tree import kill_orphans, members
from picochat_worker.settings import ATTEMPT_MARK, WORK_DIR_MARK

from .conftest import Meeting, alive, wait_for

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
# Says its pid, then leaves its environment, its session and its parent behind, as a daemon would.
DAEMON = """
import os, pathlib, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if sys.argv[2] == "clear":
            command = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
            path = pathlib.Path(sys.argv[1])
            path.with_suffix(".tmp").write_text(str(os.getpid()))
            path.with_suffix(".tmp").rename(path)
            os.execve(sys.executable, command, {})
        path = pathlib.Path(sys.argv[1])
        path.with_suffix(".tmp").write_text(str(os.getpid()))
        path.with_suffix(".tmp").rename(path)
        time.sleep(600)
    time.sleep(600 if sys.argv[2] == "clear" else 0)
    os._exit(0)
time.sleep(600)
"""


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return f"att_{tmp_path.name}_{os.getpid()}"


def start(mark: str, tmp_path: Path, *command: str) -> ProcessGroup:
    environment = {**os.environ, ATTEMPT_MARK: mark}
    return ProcessGroup(command, environment=environment, folder=tmp_path, log=tmp_path / "log.txt")


@pytest.mark.parametrize("kind", ["orphan", "clear"])
def test_kill_finds_daemons_of_the_stage(mark: str, tmp_path: Path, meeting: Meeting, kind: str) -> None:
    """Without their parent by the mark; without the mark by their parent."""
    path = str(meeting.folder / "daemon.pid")
    group = start(mark, tmp_path, sys.executable, "-S", "-c", DAEMON, path, kind)
    daemon = meeting.pid("daemon")
    assert group.kill() == []
    assert not alive(daemon)
    assert not alive(group.pid)


def test_killing_one_attempt_spares_another(mark: str, tmp_path: Path) -> None:
    one, other = start(mark, tmp_path, *SLEEP), start(f"{mark}x", tmp_path, *SLEEP)
    try:
        wait_for(lambda: other.members(), "the other to start")
        one.kill()
        assert other.poll() is None
    finally:
        other.kill()


def test_reused_pid_is_not_ours(mark: str) -> None:
    """A process is known by pid and start time together."""
    bystander = subprocess.Popen(SLEEP)
    try:
        assert members(f"{ATTEMPT_MARK}={mark}", {(bystander.pid, 1)}) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_orphans_are_ended_by_their_work_folder(mark: str) -> None:
    def orphan(work_dir: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, WORK_DIR_MARK: work_dir}
        return subprocess.Popen(SLEEP, env=environment, start_new_session=True)

    mine, foreign = orphan(f"/{mark}/mine"), orphan(f"/{mark}/foreign")
    try:
        wait_for(lambda: members(f"{WORK_DIR_MARK}=/{mark}/mine", set()), "the orphan to start")
        assert kill_orphans(f"{WORK_DIR_MARK}=/{mark}/mine") == []
        assert mine.wait(5) == -9
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_output_of_all_kinds_goes_to_the_log(mark: str, tmp_path: Path) -> None:
    code = "import sys; print('to stdout'); print('to stderr', file=sys.stderr)"
    group = start(mark, tmp_path, sys.executable, "-c", code)
    assert wait_for(lambda: group.poll() is not None, "the end")
    assert group.poll() == 0
    assert sorted((tmp_path / "log.txt").read_text().splitlines()) == ["to stderr", "to stdout"]


def test_launcher_leaves_when_its_parent_is_gone_already() -> None:
    command = [*LAUNCHER, "1", "--", sys.executable, "-c", "print('started')"]
    ended = subprocess.run(command, capture_output=True, timeout=10, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_stage_dies_with_the_process_that_started_it(tmp_path: Path, meeting: Meeting) -> None:
    starter = (
        "import os, pathlib, subprocess, sys, time\n"
        f"stage = subprocess.Popen([*{LAUNCHER!r}, str(os.getpid()), '--', *{SLEEP!r}], start_new_session=True)\n"
        f"pathlib.Path({str(meeting.folder / 'stage.tmp')!r}).write_text(str(stage.pid))\n"
        f"os.rename({str(meeting.folder / 'stage.tmp')!r}, {str(meeting.folder / 'stage.pid')!r})\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter])
    stage = meeting.pid()
    wait_for(lambda: b"time.sleep" in Path(f"/proc/{stage}/cmdline").read_bytes(), "the exec")
    wait_for(lambda: b"launcher" not in Path(f"/proc/{stage}/cmdline").read_bytes(), "the exec")
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(stage), "the stage to die", seconds=5)
