"""A worker by hand: speaks the worker protocol to an app in this process, one request at a time, runs nothing."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_contract.stages import StageName

from support.measured import preflight_json, sound_facts

W = "/api/v1/worker"
SMOKE = {"name": "smoke", "scale": "smoke"}
DATA_FILES = {layout.CORPUS_MANIFEST: b'{"shards": []}', layout.CHAT: b"rows", layout.EVAL: b"items"}
UNGATED = {"name": "ungated", "scale": "smoke", "until": "tokenizer", "gate": {"profile": "none"}}


class Hand:
    """The claim of one attempt and what its worker does with it."""

    def __init__(self, client: TestClient, name: str = "w1") -> None:
        self.client = client
        self.name = name
        self.claim: dict[str, Any] = {}
        self.num_events = 0

    # --- protocol ---

    def ask(self, stage: str | None = None) -> httpx.Response:
        body = {"worker": self.name, "host": "h", "device": "cpu", "stage": stage}
        answer = self.client.post(f"{W}/claims", json=body)
        if answer.status_code == 200:
            self.claim = answer.json()
            self.num_events = 0
        return answer

    def take(self, stage: str | None = None) -> "Hand":
        answer = self.ask(stage)
        assert answer.status_code == 200, answer.text
        return self

    def heartbeat(self, **changes: Any) -> httpx.Response:
        return self._post("heartbeat", changes)

    def events(self, *events: dict[str, Any], **changes: Any) -> httpx.Response:
        numbered = []
        for event in events:
            self.num_events += 1
            numbered.append(
                {"seq": self.num_events, "time": datetime.now(UTC).isoformat(), "data": {}, **event}
            )
        return self._post("events", {"events": numbered, **changes})

    def checkpoint(self, step: int, files: dict[str, bytes], **changes: Any) -> httpx.Response:
        body = {
            "directory": "base/resume_checkpoint",
            "step": step,
            "files": [
                {"path": path, "sha256": sha256(data), "size_bytes": len(data)}
                for path, data in files.items()
            ],
        }
        return self._post("checkpoint", {"checkpoint": body, **changes})

    def upload(self, data: bytes, **headers: str) -> httpx.Response:
        given = {"Picochat-Lease": self.claim["lease_token"], "Picochat-Attempt": self.claim["attempt"]}
        return self.client.put(
            f"/api/v1/artifacts/{sha256(data)}", content=data, headers={**given, **headers}
        )

    def finish(self, outcome: str = "succeeded", exit_code: int | None = 0, **changes: Any) -> httpx.Response:
        return self._post("finish", {"outcome": outcome, "exit_code": exit_code, **changes})

    # --- whole stages ---

    def succeed(self, outputs: dict[str, bytes] | None = None, **metrics: float) -> httpx.Response:
        """Upload `outputs`, and what the stages after it cannot do without; finish with a manifest of them."""
        files = self.outputs(outputs)
        for data in files.values():
            assert self.upload(data).status_code in (200, 201)
        return self.finish(manifest=self.manifest(files, **metrics))

    def manifest(self, files: dict[str, bytes], **metrics: float) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "fingerprint": self.claim["job"]["fingerprint"],
            "code_version": "test",
            "created_at": datetime.now(UTC).isoformat(),
            "duration_seconds": 1,
            "outputs": [
                {"path": path, "sha256": sha256(data), "size_bytes": len(data), "kind": "data"}
                for path, data in files.items()
            ],
            "metrics": metrics,
        }

    def run_until(self, stage: str) -> "Hand":
        """Claim and succeed until `stage` is claimed."""
        while self.take().stage != stage:
            assert self.succeed().status_code == 204
        return self

    def run_all(self) -> list[str]:
        """Claim and succeed until nothing is left; the names of the stages."""
        names = []
        while self.ask().status_code == 200:
            assert self.succeed().status_code == 204
            names.append(self.stage)
        return names

    def outputs(self, named: dict[str, bytes] | None = None) -> dict[str, bytes]:
        """`named`, and what the stages after this one cannot do without."""
        job = self.claim["job"]
        if self.stage == StageName.DATASET:
            return {**DATA_FILES, **(named or {})}
        if self.stage == StageName.HONESTY:
            return {layout.HONESTY: b'{"status": "ready"}', **(named or {})}
        if self.stage == StageName.PREFLIGHT:
            needed = preflight_json(job["config"], sound_facts(job["inputs"]))
            return {layout.PREFLIGHT: needed, **(named or {})}
        return {f"{self.stage}/made.txt": self.stage.encode()} if named is None else named

    @property
    def stage(self) -> str:
        return str(self.claim["job"]["stage"])

    def _post(self, verb: str, changes: dict[str, Any]) -> httpx.Response:
        body = {"lease_token": self.claim["lease_token"], "epoch": self.claim["epoch"], **changes}
        return self.client.post(f"{W}/attempts/{self.claim['attempt']}/{verb}", json=body)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def uploaded_file(client: TestClient, role: str, path: str, data: bytes, **options: Any) -> dict[str, Any]:
    """Upload `data`; what a dataset says about it."""
    assert client.put(f"/api/v1/artifacts/{sha256(data)}", content=data).status_code in (200, 201)
    return {"role": role, "path": path, "digest": sha256(data), **options}


def push(client: TestClient, name: str, *files: dict[str, Any], **fields: Any) -> httpx.Response:
    """Register uploaded files as a dataset."""
    return client.post("/api/v1/datasets", json={"name": name, "files": files, **fields})


def submit(client: TestClient, spec: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    answer = client.post("/api/v1/runs", json=spec or UNGATED, headers=headers)
    assert answer.status_code == 201, answer.text
    run: dict[str, Any] = answer.json()
    return run


def show(client: TestClient, run: dict[str, Any] | str) -> dict[str, Any]:
    run_id = run if isinstance(run, str) else run["id"]
    found: dict[str, Any] = client.get(f"/api/v1/runs/{run_id}").raise_for_status().json()
    return found


def states(run: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in run["stages"]}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check a problem JSON answer and give it back."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert len(body["detail"]) > 20, "a message says what was expected, what came, what to do"
    return body
