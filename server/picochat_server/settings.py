"""Settings of the control plane; the only module of the server that reads the environment (PICOCHAT_*)."""

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="PICOCHAT_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    home: Path = Path(".picochat")
    """Folder of the embedded mode: database, artifacts, first key, secret, logs."""
    database_url: str = ""
    """SQLAlchemy URL; empty means SQLite at home/picochat.db."""
    broker_url: str = ""
    """Redis URL for Celery hints; empty means workers poll."""
    queue: str = "picochat"
    """Celery queue that hints are published to."""
    artifact_dir: Path | None = None
    """Folder of the content-addressed store; default home/artifacts."""
    host: str = "127.0.0.1"
    port: int = Field(default=7460, ge=0, le=65535)
    allowed_hosts: str = ""
    """More Host header names that are accepted, separated by commas; '*' accepts any."""
    secret_key: str = ""
    """Signs verdicts and browser sessions; default: home/secret.key, made at the first start."""
    lease_seconds: float = Field(default=30, gt=0)
    grace_seconds: float = Field(default=15, gt=0)
    """After the lease, before another worker may take over."""
    max_upload_bytes: int = Field(default=64 * 2**30, gt=0)
    max_body_bytes: int = Field(default=8 * 2**20, gt=0)
    """Limit of JSON bodies."""
    loop_seconds: float = Field(default=2.0, gt=0)
    """Pause between rounds of outbox, reaper and reconciler."""
    rehint_seconds: float = Field(default=30.0, gt=0)
    """A queued stage is hinted again after this long."""
    allow_unreleased: bool = False
    """Serve models that no approved verdict covers; their answers say so."""
    model_idle_seconds: float = Field(default=600, gt=0)
    """A model process is stopped after this long without a request."""
    model_command: str = ""
    """Command line of a model process; default: this Python's `-m picochat_trainer serve`."""

    @field_validator("database_url")
    @classmethod
    def _psycopg3(cls, url: str) -> str:
        for prefix in ("postgresql://", "postgres://"):
            if url.startswith(prefix):
                return "postgresql+psycopg://" + url.removeprefix(prefix)
        return url

    @property
    def url(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'picochat.db').resolve()}"

    @property
    def artifacts(self) -> Path:
        return self.artifact_dir or self.home / "artifacts"

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK_HOSTS
