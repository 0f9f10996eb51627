import pytest
from picochat_worker.settings import WorkerSettings, stage_environment
from pydantic import SecretStr


def test_a_stage_is_told_how_its_ranks_wait_but_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOCHAT_WORKER_API_KEY", "secret")
    monkeypatch.setenv("PICOCHAT_DDP_TIMEOUT_MINUTES", "30")
    environment = stage_environment("attempt_1", WorkerSettings(api_key=SecretStr("secret")))
    assert environment["PICOCHAT_DDP_TIMEOUT_MINUTES"] == "30"
    assert "secret" not in environment.values()
