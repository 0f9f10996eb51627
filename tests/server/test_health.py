"""Health, readiness and metrics."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.apps import client_with


def test_health_ready_and_metrics_answer_without_a_key(app: FastAPI, client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path, headers={"Authorization": ""}).status_code == 200


def test_ready_says_no_while_the_server_shuts_down(app: FastAPI, client: TestClient) -> None:
    app.state.closing.set()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_metrics_count_by_route_and_never_by_path(client: TestClient) -> None:
    client.get("/api/v1/nowhere-secret-name")
    client.get("/api/v1/keys")
    text = client.get("/metrics").text
    assert 'picochat_http_requests_total{method="GET",route="/api/v1/keys",status="200"} 1.0' in text
    assert "nowhere-secret-name" not in text


def test_made_up_methods_make_no_new_series(app: FastAPI) -> None:
    """Anybody can send any method: a series for each would fill the memory."""
    stranger = client_with(app, None)
    for number in range(3):
        stranger.request(f"MADE{number}UP", "/healthz")
    text = stranger.get("/metrics").text
    assert "UP" not in text
    assert 'method="other"' in text
