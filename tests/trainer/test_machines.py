"""Who leads a run on several machines, and how the others end: each machine is a thread here."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from picochat_contract.configs import Resources
from picochat_contract.errors import Code, ContractError
from picochat_trainer import machines
from picochat_trainer.machines import ANNOUNCEMENT, together

TWO = Resources(nnodes=2, rdzv_endpoint="127.0.0.1:1")


def nothing(line: str) -> None:
    pass


def until(folder: Path, state: str) -> None:
    deadline = time.monotonic() + 30
    while f'"state": "{state}"' not in ((folder / ANNOUNCEMENT).read_text() if folder.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_machine_leads_and_the_other_ends_with_its_code(tmp_path: Path) -> None:
    calls: list[int] = []
    said: list[str] = []

    def command() -> int:
        calls.append(1)
        deadline = time.monotonic() + 30
        while not any("works for it" in line for line in said):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return 3

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(together, tmp_path / "run", TWO, command, said.append) for _ in (0, 1)]
        assert [machine.result(timeout=60) for machine in both] == [3, 3]
    assert len(calls) == 1


def test_a_machine_that_comes_again_does_not_take_an_old_end_for_the_new_one(tmp_path: Path) -> None:
    assert together(tmp_path, TWO, lambda: 5, nothing) == 5
    until(tmp_path, "ended")
    assert together(tmp_path, TWO, lambda: 0, nothing) == 0


def test_what_fails_on_the_leader_fails_on_the_others(tmp_path: Path) -> None:
    said: list[str] = []

    def command() -> int:
        while not any("works for it" in line for line in said):
            time.sleep(0.01)
        raise ContractError(Code.CORPUS_EMPTY, "no text")

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(together, tmp_path, TWO, command, said.append) for _ in (0, 1)]
        ends = [machine.exception(timeout=60) or machine.result() for machine in both]
    assert sorted(str(end) for end in ends) == ["1", "no text"]


def test_a_leader_that_vanished_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as pool:
        # As if the leader were killed: it lets go of the lock without its last word.
        monkeypatch.setattr(machines, "_say_next", lambda *args, **values: None)
        said: list[str] = []

        def command() -> int:
            other = pool.submit(together, tmp_path, TWO, lambda: 0, said.append)
            while not said:
                time.sleep(0.01)
            futures.append(other)
            return 0

        futures: list[object] = []
        together(tmp_path, TWO, command, nothing)
        [other] = futures
        with pytest.raises(ContractError, match="has ended without a word") as found:
            other.result(timeout=60)  # type: ignore[attr-defined]
    assert found.value.code == Code.RANKS_NOT_READY


def test_one_machine_needs_no_file(tmp_path: Path) -> None:
    assert together(tmp_path, Resources(nproc_per_node=2), lambda: 4, nothing) == 4
    assert not (tmp_path / ANNOUNCEMENT).exists()
