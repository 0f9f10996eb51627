"""Rank 0 sets up while others wait: each rank is a thread here, since the file is all that they share."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_contract.manifest import StageJob
from picochat_trainer.context import Interrupted, StageContext
from picochat_trainer.settings import DDP_HEARTBEAT, DDP_TIMEOUT, RankSettings
from picochat_trainer.training.control import CONTROL, MISSED_BEATS, RankSetup, RanksNotReadyError

QUICK = RankSettings(timeout_minutes=1.0, heartbeat_seconds=0.05)
BRIEF = RankSettings(timeout_minutes=0.5 / 60, heartbeat_seconds=0.05)

MakeRank = Callable[..., RankSetup]


@pytest.fixture
def rank(tmp_path: Path) -> MakeRank:
    def make(
        number: int, settings: RankSettings = QUICK, attempt: str = "first", awaits_end: bool = False
    ) -> RankSetup:
        return RankSetup(
            tmp_path,
            is_main=number == 0,
            attempt=attempt,
            settings=settings,
            join=lambda: None,
            awaits_end=awaits_end,
        )

    return make


def content(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / CONTROL).read_text())
    return found


def fail_with(setup: RankSetup, error: BaseException) -> None:
    def prepare() -> None:
        raise error

    with pytest.raises(type(error)), setup.telling():
        setup.main_first(prepare)


def test_others_prepare_after_rank_0_and_find_what_it_left(rank: MakeRank, tmp_path: Path) -> None:
    order: list[str] = []
    main = rank(0)

    def plan() -> str:
        time.sleep(0.2)  # long enough for a rank that does not wait
        order.append("main")
        (tmp_path / "plan").write_text("rows")
        return "rows"

    def read() -> str:
        order.append("other")
        return (tmp_path / "plan").read_text()

    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(rank(number).main_first, read) for number in (1, 2)]
        assert pool.submit(main.main_first, plan).result() == "rows"
        assert [other.result() for other in others] == ["rows", "rows"]
    assert order == ["main", "other", "other"]
    assert content(tmp_path)["state"] == "ready"


def test_signs_of_life_go_on_while_rank_0_prepares(rank: MakeRank, tmp_path: Path) -> None:
    main = rank(0)
    seen = {content(tmp_path)["time"]}
    deadline = time.monotonic() + 30
    while len(seen) < 3:
        assert time.monotonic() < deadline
        seen.add(content(tmp_path)["time"])
    main.main_first(lambda: None)
    found = content(tmp_path)
    assert (found["state"], found["attempt"]) == ("ready", "first")
    assert {"pid", "host", "log", "started_at"} <= found.keys()


def test_a_long_set_up_times_out_with_where_to_look(rank: MakeRank, tmp_path: Path) -> None:
    main, waiting = rank(0), rank(1, BRIEF)
    with pytest.raises(RanksNotReadyError) as found:
        waiting.main_first(lambda: None)
    assert "has not finished its set-up since 20" in str(found.value)
    assert f"see its log at {tmp_path / 'log.txt'}" in str(found.value)
    assert "PICOCHAT_DDP_TIMEOUT_MINUTES" in str(found.value)
    main.main_first(lambda: None)


def test_a_heart_that_stopped_is_noticed(rank: MakeRank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)  # as if rank 0 had died
    rank(0)
    begun = time.monotonic()
    with pytest.raises(RanksNotReadyError, match="has not given a sign of life since"):
        rank(1).main_first(lambda: None)
    assert time.monotonic() - begun >= MISSED_BEATS * QUICK.heartbeat_seconds


def test_a_file_of_an_earlier_start_means_nothing(rank: MakeRank, tmp_path: Path) -> None:
    rank(0, attempt="earlier").main_first(lambda: None)
    with pytest.raises(RanksNotReadyError, match="Do all machines see the same folder"):
        rank(1, BRIEF).main_first(lambda: None)


def test_what_ends_rank_0_ends_the_others_with_its_error(rank: MakeRank) -> None:
    fail_with(rank(0), ContractError(Code.CORPUS_TOO_SMALL, "give more text", param="val_fraction"))
    with pytest.raises(ContractError, match="give more text") as found:
        rank(1).main_first(lambda: None)
    assert (found.value.code, found.value.param) == (Code.CORPUS_TOO_SMALL, "val_fraction")


def test_a_fault_of_rank_0_is_no_bad_input_on_the_others(rank: MakeRank, tmp_path: Path) -> None:
    fail_with(rank(0), OSError("disk on fire"))
    with pytest.raises(RanksNotReadyError, match=r"failed: OSError: disk on fire; see its log"):
        rank(1).main_first(lambda: None)
    assert content(tmp_path)["state"] == "failed"


def test_a_stop_of_rank_0_stops_the_others(rank: MakeRank) -> None:
    fail_with(rank(0), Interrupted())
    with pytest.raises(Interrupted):
        rank(1).main_first(lambda: None)


def test_the_heart_beats_on_after_the_set_up_and_the_end_is_told(rank: MakeRank, tmp_path: Path) -> None:
    main = rank(0)
    with main.telling():
        main.main_first(lambda: None)
        first = content(tmp_path)
        deadline = time.monotonic() + 30
        while content(tmp_path) == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert content(tmp_path)["state"] == "ready"
    assert content(tmp_path)["state"] == "done"


@pytest.mark.parametrize("error", [None, ContractError(Code.INVALID_VALUE, "no finite loss"), Interrupted()])
def test_ranks_of_other_machines_await_the_end_of_rank_0(rank: MakeRank, error: BaseException | None) -> None:
    main, other = rank(0), rank(1, awaits_end=True)

    def train(setup: RankSetup, end: BaseException | None) -> None:
        with setup.telling():
            setup.main_first(lambda: None)
            if end is not None:
                raise end

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(train, other, None)
        time.sleep(0.1)
        assert not waiting.done()
        working = pool.submit(train, main, error)
        assert type(waiting.exception()) is type(working.exception()) is type(error)


def test_one_process_prepares_without_a_file(tmp_path: Path) -> None:
    context = StageContext(tmp_path, StageJob(stage="base", config={}))
    assert context.main_first(lambda: 7) == 7
    assert not (context.stage_dir / CONTROL).exists()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DDP_TIMEOUT, raising=False)
    monkeypatch.delenv(DDP_HEARTBEAT, raising=False)
    assert RankSettings.from_environment() == RankSettings(timeout_minutes=120, heartbeat_seconds=30)
    monkeypatch.setenv(DDP_TIMEOUT, "5")
    monkeypatch.setenv(DDP_HEARTBEAT, "2.5")
    assert RankSettings.from_environment() == RankSettings(timeout_minutes=5, heartbeat_seconds=2.5)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_setting_that_is_no_number_above_0_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(DDP_TIMEOUT, text)
    with pytest.raises(ContractError, match=f"{DDP_TIMEOUT} must be a number above 0"):
        RankSettings.from_environment()
