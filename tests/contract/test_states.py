"""The transition tables: closed, final where they say so, and enforced."""

from enum import StrEnum
from typing import Any

import pytest
from picochat_contract.errors import Code, TransitionError
from picochat_contract.states import (
    ATTEMPT_TRANSITIONS,
    RUN_FINAL,
    RUN_TRANSITIONS,
    STAGE_DONE,
    STAGE_FINAL,
    STAGE_TRANSITIONS,
    AttemptState,
    RunState,
    StageState,
    move,
)

TABLES: list[tuple[Any, type[StrEnum]]] = [
    (RUN_TRANSITIONS, RunState),
    (STAGE_TRANSITIONS, StageState),
    (ATTEMPT_TRANSITIONS, AttemptState),
]


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_every_state_has_a_row_and_none_leads_to_itself(table: Any, states: type[StrEnum]) -> None:
    assert set(table) == set(states)
    assert all(state not in after for state, after in table.items())


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_move_allows_the_table_and_nothing_else(table: Any, states: type[StrEnum]) -> None:
    for old in states:
        for new in states:
            if new in table[old]:
                assert move(table, old, new) is new
            else:
                with pytest.raises(TransitionError) as caught:
                    move(table, old, new)
                assert caught.value.code is Code.ILLEGAL_TRANSITION


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_every_state_can_reach_an_end(table: Any, states: type[StrEnum]) -> None:
    ends = {state for state in states if not table[state]}
    for state in states:
        reached, todo = {state}, [state]
        while todo:
            new = table[todo.pop()] - reached
            reached |= new
            todo += list(new)
        assert reached & ends


def test_the_named_ends_are_the_ends_of_the_tables() -> None:
    assert {RunState.SUCCEEDED, RunState.BLOCKED, RunState.FAILED, RunState.CANCELLED} == RUN_FINAL
    assert STAGE_DONE <= STAGE_FINAL
