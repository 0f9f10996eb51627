"""Threads that wait for each other leave the cores to others."""

import os
import subprocess
import sys

import pytest
from picochat_trainer.cores import SPIN_COUNT, limit_spinning


def test_spinning_is_limited_where_nobody_says_how_to_wait() -> None:
    environment = {"PATH": "/bin"}
    limit_spinning(environment)
    assert environment == {"PATH": "/bin", "GOMP_SPINCOUNT": SPIN_COUNT}


@pytest.mark.parametrize("given", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE"}])
def test_what_somebody_says_stays(given: dict[str, str]) -> None:
    environment = dict(given)
    limit_spinning(environment)
    assert environment == given


def test_the_library_is_told_before_torch_loads_it() -> None:
    """GNU OpenMP reads its settings once; what it took shows in what it displays of them."""
    code = (
        "import os, picochat_trainer.process as process, sys;"
        "assert 'torch' not in sys.modules;"
        "sys.argv = ['x']; os.environ['OMP_DISPLAY_ENV'] = 'VERBOSE';"
        "process.limit_spinning(os.environ); import torch"
    )
    unset = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=unset, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch is not built with GNU OpenMP")
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in done.stderr


FAULTS = """
import resource, sys
from picochat_trainer.cores import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    print("no glibc"); sys.exit()
def fill():
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again() -> None:
    found = {}
    for case in ("given back", "kept"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, case], capture_output=True, text=True, timeout=60, check=True
        )
        found[case] = done.stdout.strip()
    if not found["kept"].isdigit():
        pytest.skip(found["kept"])
    assert int(found["given back"]) > 10 * int(found["kept"]) + 10
