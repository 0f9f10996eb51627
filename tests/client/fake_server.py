"""A picochat server in memory: `handle` answers httpx requests, `serve` puts the same behind a loopback socket.

It keeps to docs/protocol.md and can misbehave on purpose: drop streams, repeat or skip events, fail, go away.
"""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from picochat_contract.api_data import DatasetIn, DatasetOut
from picochat_contract.errors import Code, ContractError
from picochat_contract.gate import Verdict
from picochat_contract.layout import kind_of
from picochat_contract.paid_launch import refuse_unconfirmed
from picochat_contract.spec import check_uploadable, parse_mapping

from .findings import dataset_out
from .scripted import KEY, START, FakeRun, Script, answer, problem

PAGE = 50


class FakeServer:
    """See the header. `faults` are tried before each request is answered; one that returns None lets it pass."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.runs: dict[str, FakeRun] = {}
        self.script = Script()
        self.by_key: dict[str, str] = {}
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[str, bytearray] = {}
        self.faults: list[Callable[[httpx.Request], httpx.Response | None]] = []
        self.datasets: list[DatasetOut] = []
        self.keys: dict[str, dict[str, Any]] = {}
        self.drops_left = 0
        self.num_drops = 0
        self.replays = 0
        self.skips = False
        self.streams = True
        self.reveal_by_list = 3
        self.event_delay: Callable[[], None] = lambda: None
        self._random = random.Random(7)

    def fail(self, *responses: httpx.Response | type[httpx.TransportError]) -> None:
        """Let the next requests fail in this order."""
        queue = list(responses)

        def fault(request: httpx.Request) -> httpx.Response | None:
            if not queue:
                return None
            wrong = queue.pop(0)
            if isinstance(wrong, httpx.Response):
                return wrong
            raise wrong("broken on purpose", request=request)

        self.faults.append(fault)

    def calls(self, method: str, path: str) -> list[httpx.Request]:
        return [r for r in self.requests if r.method == method and r.url.path == f"/api/v1{path}"]

    def add_run(self, body: dict[str, Any] | None = None, script: Script | None = None) -> FakeRun:
        run = FakeRun(f"run_{len(self.runs) + 1}", body or {"scale": "smoke"}, script or self.script)
        self.runs[run.id] = run
        return run

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        for fault in self.faults:
            wrong = fault(request)
            if wrong is not None:
                return wrong
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, Code.UNAUTHENTICATED, "no such key")
        parts = request.url.path.removeprefix("/api/v1/").split("/")
        name = f"{request.method.lower()}_{parts[0]}"
        try:
            found: httpx.Response = getattr(self, name)(request, *parts[1:])
        except ContractError as error:
            return problem(422, error.code, error.message, param=error.param)
        except (AttributeError, TypeError, KeyError):
            return problem(404, Code.NOT_FOUND, f"nothing at {request.url.path}")
        return found

    def post_runs(self, request: httpx.Request, id: str = "", action: str = "") -> httpx.Response:
        if action == "cancel":
            self.runs[id].cancelled = True
            return answer(self.runs[id].out(), 202)
        if action == "checkpoint":
            return answer(self.runs[id].out(), 202)
        key = request.headers["Idempotency-Key"]
        if key not in self.by_key:
            body = json.loads(request.content)
            spec = parse_mapping(body)
            check_uploadable(spec)
            refuse_unconfirmed(spec)
            self.by_key[key] = self.add_run(body).id
        return answer(self.runs[self.by_key[key]].out(), 201)

    def get_runs(self, request: httpx.Request, id: str = "", part: str = "", *rest: str) -> httpx.Response:
        if not id:
            return self._run_list(request)
        run = self.runs[id]
        if part == "events":
            return self._event_stream(run, request) if rest else self._event_list(run, request)
        if part == "gate":
            gate = run.gate()
            return answer(gate) if gate else problem(404, Code.GATE_NOT_READY, "no verdict yet")
        if part == "preflight":
            found = run.preflight()
            return answer(found) if found else problem(404, Code.PREFLIGHT_NOT_READY, "not judged yet")
        if part == "honesty":
            report = run.honesty()
            return answer(report) if report else problem(404, Code.HONESTY_NOT_READY, "not compared yet")
        if part == "metrics":
            return answer({"series": [{"stage": "base", "name": "val_bpb", "steps": [1], "values": [2.0]}]})
        if part == "artifacts":
            return self._artifact(run, "/".join(rest), request) if rest else self._artifact_list(run)
        return answer(run.out()) if not part else problem(404, Code.NOT_FOUND, part)

    def _run_list(self, request: httpx.Request) -> httpx.Response:
        names = list(reversed(self.runs))
        after = request.url.params.get("after")
        state = request.url.params.get("state")
        names = names[names.index(after) + 1 :] if after else names
        shown = [self.runs[name].out().model_dump(mode="json") for name in names[:2]]
        drop = {"spec", "stages", "gate_profile", "last_seq"}
        data = [{k: v for k, v in run.items() if k not in drop} for run in shown]
        data = [run for run in data if state in (None, run["state"])]
        more = len(names) > 2
        return answer({"data": data, "has_more": more, "next": names[1] if more else None})

    def _event_list(self, run: FakeRun, request: httpx.Request) -> httpx.Response:
        after = int(request.url.params.get("after", 0))
        run.visible = min(len(run.events), run.visible + self.reveal_by_list)
        found = run.events[after : min(run.visible, after + PAGE)]
        more = after + len(found) < run.visible
        data = [event.model_dump(mode="json") for event in found]
        return answer({"data": data, "has_more": more, "next": str(found[-1].seq) if more else None})

    def _event_stream(self, run: FakeRun, request: httpx.Request) -> httpx.Response:
        if not self.streams:
            return problem(404, Code.NOT_FOUND, "no stream here")
        last = int(request.headers.get("Last-Event-ID", 0))
        body = self._stream_body(run, last, request)
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)

    def _stream_body(self, run: FakeRun, last: int, request: httpx.Request) -> Iterator[bytes]:
        yield b": ping\n\n"
        first = max(0, last - self.replays)
        for event in run.events[first:]:
            if run.cancelled:
                return
            self.event_delay()
            if self.skips and event.seq % 5 == 0:
                run.visible = max(run.visible, event.seq)
                continue
            raw = f"id: {event.seq}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()
            dropping = self.drops_left > 0 and event.seq > last
            cut = self._random.choice([len(raw), len(raw) // 2, 1]) if dropping else len(raw)
            run.visible = max(run.visible, event.seq)
            yield raw[:cut]
            if dropping:
                self.drops_left -= 1
                self.num_drops += 1
                raise httpx.ReadError("dropped on purpose", request=request)

    def _artifact_list(self, run: FakeRun) -> httpx.Response:
        data = [
            {
                "path": path,
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_bytes": len(content),
                "kind": kind_of(path),
                "stage": "base",
                "created_at": START.isoformat(),
            }
            for path, content in run.artifacts.items()
        ]
        return answer({"data": data, "has_more": False, "next": None})

    def _artifact(self, run: FakeRun, path: str, request: httpx.Request) -> httpx.Response:
        content = run.artifacts[path]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        wanted = request.headers.get("Range")
        if wanted and request.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return problem(416, Code.INVALID_REQUEST, "nothing there")
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return httpx.Response(206, headers={"ETag": etag, "Content-Range": span}, content=content[start:])
        return httpx.Response(200, headers={"ETag": etag}, content=content)

    def post_artifacts(self, request: httpx.Request, action: str) -> httpx.Response:
        assert action == "missing"
        digests = json.loads(request.content)["digests"]
        return answer({"missing": [digest for digest in digests if digest not in self.blobs]})

    def put_artifacts(self, request: httpx.Request, sha256: str) -> httpx.Response:
        return self._store(sha256, request.content)

    def patch_artifacts(self, request: httpx.Request, sha256: str) -> httpx.Response:
        held = self.partial.setdefault(sha256, bytearray())
        offset, length = int(request.headers["Upload-Offset"]), int(request.headers["Upload-Length"])
        if offset != len(held):
            return problem(409, Code.UPLOAD_OFFSET, f"expected {len(held)}", offset=len(held))
        held += request.content
        if len(held) == length:
            return self._store(sha256, bytes(held))
        return answer({"sha256": sha256, "size_bytes": length, "complete": False, "offset": len(held)})

    def _store(self, sha256: str, content: bytes) -> httpx.Response:
        if hashlib.sha256(content).hexdigest() != sha256:
            return problem(422, Code.DIGEST_MISMATCH, "the bytes have another sha256")
        self.blobs[sha256] = content
        done = {"sha256": sha256, "size_bytes": len(content), "complete": True, "offset": len(content)}
        return answer(done, 201)

    def post_datasets(self, request: httpx.Request) -> httpx.Response:
        body = DatasetIn.model_validate_json(request.content)
        absent = [file.path for file in body.files if file.digest not in self.blobs]
        if absent:
            return problem(422, Code.SOURCE_NOT_UPLOADED, f"not uploaded: {absent}")
        versions = [one for one in self.datasets if one.name == body.name]
        if versions and versions[-1].digest == body.digest:
            return answer(versions[-1])
        made = dataset_out(
            body, {sha256: len(content) for sha256, content in self.blobs.items()}, len(versions)
        )
        self.datasets.append(made)
        return answer(made, 201)

    def get_datasets(self, request: httpx.Request, id: str = "", name: str = "") -> httpx.Response:
        found = self.datasets[::-1]
        if name:
            version = int(request.url.params.get("version", 0))
            found = [one for one in found if one.name == name and version in (0, one.version)]
        elif id:
            found = [one for one in found if one.id == id]
        else:
            data = [one.model_dump(mode="json", exclude={"files", "left_out"}) for one in found]
            return answer({"data": data, "has_more": False, "next": None})
        return answer(found[0]) if found else problem(404, Code.NOT_FOUND, "this project has no such dataset")

    def post_keys(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        id = f"key_{len(self.keys) + 1}"
        key = {"id": id, "name": body["name"], "scopes": body["scopes"], "created_at": START.isoformat()}
        self.keys[id] = key | {"expires_at": None, "revoked_at": None}
        return answer(self.keys[id] | {"secret": "pk_new"}, 201)

    def get_keys(self, request: httpx.Request) -> httpx.Response:
        return answer({"data": list(self.keys.values()), "has_more": False, "next": None})

    def delete_keys(self, request: httpx.Request, id: str) -> httpx.Response:
        self.keys[id]["revoked_at"] = START.isoformat()
        return httpx.Response(204)

    def post_releases(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        run = self.runs[body["run"]]
        if run.script.verdict is not Verdict.APPROVED:
            return problem(409, Code.GATE_NOT_PASSED, f"verdict of {run.id} is {run.script.verdict}")
        found = {"id": "rel_1", "name": body["name"], "version": 1, "run": run.id, "verdict": "approved"}
        return answer(found | {"checkpoint_sha256": "1" * 64, "created_at": START.isoformat()}, 201)

    def get_releases(self, request: httpx.Request) -> httpx.Response:
        return answer({"data": [], "has_more": False, "next": None})

    def get_workers(self, request: httpx.Request) -> httpx.Response:
        worker = {"name": "w1", "host": "h", "device": "cpu", "last_seen_at": START.isoformat()}
        return answer({"data": [worker | {"attempt": None}], "has_more": False, "next": None})


@contextmanager
def serve(server: FakeServer, port: int = 0) -> Iterator[str]:
    """The server on a loopback socket; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            request = httpx.Request(
                self.command,
                f"http://x{self.path}",
                headers=dict(self.headers),
                content=self.rfile.read(length),
            )
            response = server.handle(request)
            self.send_response(response.status_code)
            stream = response.headers.get("Content-Type") == "text/event-stream"
            for name in ("Content-Type", "ETag", "Content-Range"):
                if name in response.headers:
                    self.send_header(name, response.headers[name])
            if not stream:
                self.send_header("Content-Length", str(len(response.content)))
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for chunk in response.iter_bytes():
                    self.wfile.write(chunk)
                    self.wfile.flush()
            except (httpx.TransportError, OSError):
                pass  # dropped on purpose, or the client went away
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Listener(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return

    listener = Listener(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
