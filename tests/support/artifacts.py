"""Bytes to upload, and an attempt that holds a lease, made without a worker."""

from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import FastAPI
from picochat_contract.api import ATTEMPT_HEADER, LEASE_HEADER
from picochat_contract.canonical import sha256_hex
from picochat_contract.ids import new_id
from picochat_contract.stages import StageName
from picochat_contract.states import AttemptState, StageState
from picochat_server.db import transaction
from picochat_server.models import Attempt, Stage
from sqlalchemy import select

from support.finished_run import make_finished_run


@dataclass(frozen=True)
class Blob:
    content: bytes

    @property
    def digest(self) -> str:
        return sha256_hex(self.content)

    @property
    def url(self) -> str:
        return f"/api/v1/artifacts/{self.digest}"


@dataclass(frozen=True)
class LiveAttempt:
    app: FastAPI
    stage_id: str
    attempt_id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {LEASE_HEADER: self.token, ATTEMPT_HEADER: self.attempt_id}

    def take_over(self) -> "LiveAttempt":
        """What another worker's claim does once lease and grace are over."""
        with transaction(self.app.state.sessions) as session:
            session.get_one(Attempt, self.attempt_id).state = AttemptState.LOST.value
        return _claim(self.app, self.stage_id)


def live_attempt(app: FastAPI, project_id: str) -> LiveAttempt:
    """An attempt at the base stage of a new run."""
    run = make_finished_run(app, project_id, {})
    with transaction(app.state.sessions) as session:
        stage_id = session.scalars(
            select(Stage.id).where(Stage.run_id == run.run_id, Stage.name == StageName.BASE.value)
        ).one()
    return _claim(app, stage_id)


def _claim(app: FastAPI, stage_id: str) -> LiveAttempt:
    with transaction(app.state.sessions) as session:
        stage = session.get_one(Stage, stage_id)
        stage.epoch += 1
        stage.state = StageState.RUNNING.value
        stage.lease_token = sha256_hex(f"{stage_id} {stage.epoch}")
        attempt = Attempt(
            id=new_id("attempt"),
            stage_id=stage_id,
            run_id=stage.run_id,
            epoch=stage.epoch,
            state=AttemptState.RUNNING.value,
            worker="fixture",
            last_client_seq=0,
            started_at=datetime.now(UTC),
        )
        session.add(attempt)
        return LiveAttempt(app, stage_id, attempt.id, stage.lease_token)
