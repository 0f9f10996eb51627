"""Many workers, readers and cancellers at once: nothing fails, nothing runs twice, every run ends."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import transaction
from picochat_server.models import Attempt, Event, Run
from sqlalchemy import func, select
from support.clock import expire, reap_now
from support.hand import SMOKE, Hand, submit

NUM_RUNS, NUM_WORKERS = 8, 8
NO_CACHE: dict[str, Any] = {**SMOKE, "until": "sft", "gate": {"profile": "none"}}


def _work(app: FastAPI, worker: TestClient, number: int) -> set[int]:
    """Claim and carry stages to an end until nothing is left; the status codes that came."""
    dice = random.Random(number)
    hand = Hand(worker, f"w{number}")
    codes = set()
    idle = 0
    while idle < 10:
        asked = hand.ask()
        codes.add(asked.status_code)
        if asked.status_code != 200:
            idle += 1
            continue
        idle = 0
        codes.add(hand.heartbeat(step=1).status_code)
        codes.add(
            hand.events(
                {"type": "log"}, {"type": "metric", "data": {"step": 1, "values": {"x": 1}}}
            ).status_code
        )
        if dice.random() < 0.15:
            expire(app, hand.claim["stage"], 100)  # this worker dies
            continue
        files = hand.outputs({f"{hand.stage}/x": hand.claim["attempt"].encode()})
        codes |= {hand.upload(content).status_code for content in files.values()}
        codes.add(hand.finish(manifest=hand.manifest(files)).status_code)
    return codes


def test_crowd_ends_every_run_without_an_error(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    runs = [
        submit(client, {**NO_CACHE, "max_attempts": 20, "dataset": {"seed": n}})["id"]
        for n in range(NUM_RUNS)
    ]

    def read_and_cancel() -> set[int]:
        codes = {client.get(f"/api/v1/runs/{run}").status_code for run in runs for _ in range(3)}
        codes |= {client.post(f"/api/v1/runs/{run}/cancel").status_code for run in runs[:2]}
        return codes | {200 for _ in range(10) if reap_now(app) >= 0}

    with ThreadPoolExecutor(NUM_WORKERS + 2) as pool:
        jobs = [pool.submit(_work, app, worker, number) for number in range(NUM_WORKERS)]
        jobs += [pool.submit(read_and_cancel) for _ in range(2)]
        codes = set().union(*(job.result() for job in jobs))
    assert codes <= {200, 201, 202, 204, 409}
    for _ in range(3):  # whoever died last
        reap_now(app)
        _work(app, worker, 0)
    with transaction(app.state.sessions) as session:
        assert set(session.scalars(select(Run.state))) <= {"succeeded", "cancelled"}
        per_stage = select(func.count()).where(Attempt.state == "succeeded").group_by(Attempt.stage_id)
        assert set(session.scalars(per_stage)) == {1}
        for run in session.scalars(select(Run)):
            seqs = session.scalars(select(Event.seq).where(Event.run_id == run.id).order_by(Event.seq)).all()
            assert seqs == list(range(1, run.event_seq + 1))
