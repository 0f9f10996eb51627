"""States change only along the contract's table, and only from the state that the caller saw."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.errors import TransitionError
from picochat_contract.states import RUN_TRANSITIONS, STAGE_TRANSITIONS, RunState, StageState
from picochat_server.db import transaction
from picochat_server.models import Run, Stage
from picochat_server.problems import ApiProblem
from picochat_server.runs import repository
from picochat_server.runs.transitions import move_run, move_stage
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.hand import submit


def _rows(session: Session, run_id: str) -> tuple[Run, Stage]:
    run = repository.lock_run(session, run_id)
    assert run is not None
    return run, repository.stages_of(session, run_id)[0]


def test_every_move_of_a_stage_follows_the_table(app: FastAPI, client: TestClient) -> None:
    run_id = submit(client)["id"]
    for old in StageState:
        for new in StageState:
            with app.state.sessions() as session:
                run, stage = _rows(session, run_id)
                session.execute(update(Stage).where(Stage.id == stage.id).values(state=old.value))
                if new in STAGE_TRANSITIONS[old]:
                    move_stage(session, run, stage, new)
                    assert stage.state == new
                else:
                    with pytest.raises(TransitionError, match=f"{old} to {new}"):
                        move_stage(session, run, stage, new)
                session.rollback()


def test_every_move_of_a_run_follows_the_table(app: FastAPI, client: TestClient) -> None:
    run_id = submit(client)["id"]
    for old in RunState:
        for new in RunState:
            with app.state.sessions() as session:
                run, _ = _rows(session, run_id)
                session.execute(update(Run).where(Run.id == run_id).values(state=old.value))
                if new in RUN_TRANSITIONS[old]:
                    move_run(session, run, new)
                    assert run.state == new
                else:
                    with pytest.raises(TransitionError):
                        move_run(session, run, new)
                session.rollback()


def test_row_that_somebody_else_moved_is_not_overwritten(app: FastAPI, client: TestClient) -> None:
    run_id = submit(client)["id"]
    with app.state.sessions() as session:
        run, stage = _rows(session, run_id)
        table = Stage.__table__
        session.execute(table.update().where(table.c.id == stage.id).values(state="running"))  # type: ignore[attr-defined]
        assert stage.state == "queued", "what this session remembers"
        with pytest.raises(ApiProblem, match="not queued any more"):
            move_stage(session, run, stage, StageState.CANCELLED)
        session.rollback()


def test_move_event_and_hint_are_one_transaction(app: FastAPI, client: TestClient) -> None:
    run_id = submit(client)["id"]
    with pytest.raises(RuntimeError), transaction(app.state.sessions) as session:
        run, stage = _rows(session, run_id)
        move_stage(session, run, stage, StageState.CANCELLED)
        raise RuntimeError("the server dies here")
    shown = client.get(f"/api/v1/runs/{run_id}").json()
    assert shown["stages"][0]["state"] == "queued"
    events = client.get(f"/api/v1/runs/{run_id}/events").json()["data"]
    assert [event["data"]["to"] for event in events] == ["queued"]
